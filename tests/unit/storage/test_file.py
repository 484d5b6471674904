"""What only a folder can get wrong: places outside it, modes, links, leftovers, what the system says."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

import pytest

from pgbackup.errors import ConfigError, ObjectMissing, StorageError, StoreDenied, StoreUnavailable
from pgbackup.storage import disk
from pgbackup.storage.disk import HIDDEN, Disk, translate
from pgbackup.storage.file import FileStore, folder_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def store(root: Path) -> FileStore:
    return FileStore(root)


@pytest.mark.parametrize(
    "key", ["../x", "a/../../x", "a/..", "a//b", "./a", "a/", "a\0b", HIDDEN, f"{HIDDEN}/lock", "/etc/passwd"]
)
def test_keys_outside_the_folder_are_refused(store: FileStore, tmp_path: Path, key: str) -> None:
    (tmp_path / "x").write_bytes(b"outside")
    store.put("a/there", b"inside")
    for call in (
        lambda: store.put(key, b"x"),
        lambda: store.put_if_absent(key, b"x"),
        lambda: store.replace(key, b"x", "etag"),
        lambda: store.get(key),
        lambda: store.open_read(key).__enter__(),
        lambda: store.head(key),
        lambda: store.delete([key]),
        lambda: store.start_upload(key),
        lambda: store.abort_upload(key, "0"),
    ):
        with pytest.raises(StorageError, match="not a key"):
            call()
    assert (tmp_path / "x").read_bytes() == b"outside"


@pytest.mark.parametrize("prefix", ["../", "a/../../", f"{HIDDEN}/", "/", "//", "./"])
def test_nothing_outside_the_folder_is_listed(store: FileStore, tmp_path: Path, prefix: str) -> None:
    (tmp_path / "x").write_bytes(b"outside")
    store.put("a/there", b"inside")
    assert list(store.list(prefix)) == []
    assert store.list_level(prefix) == ([], [])


def test_an_abort_at_work_leaves_no_object_with_a_hole(store: FileStore, tmp_path: Path) -> None:
    """An abort in another thread removes the parts one by one, while ``complete`` joins them."""
    upload = store.start_upload("k")
    for number in (1, 2, 3):
        upload.put_part(number, b"x" * number)
    [part] = tmp_path.rglob("00000002")
    part.unlink()
    with pytest.raises(StorageError, match="completing the upload of k"):
        upload.complete()
    assert store.head("k") is None


def test_an_upload_id_is_not_a_path(store: FileStore, tmp_path: Path) -> None:
    store.put("k", b"x")
    with pytest.raises(StorageError, match="not an upload id"):
        store.abort_upload("k", "../../..")
    assert store.get("k") == b"x"


def test_files_are_for_their_owner_only(store: FileStore, root: Path) -> None:
    store.put("a/b/c", b"x")
    store.put_if_absent("a/d", b"x")
    upload = store.start_upload("a/e")
    upload.put_part(1, b"x")
    upload.complete()
    for path in [root, *root.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files that its folder's owner could not read")
def test_what_root_makes_belongs_to_the_owner_of_the_repository(store: FileStore, root: Path) -> None:
    """`pgbackup run` goes on as that user, and has to read and replace what an administrator's command recorded."""
    root.mkdir()
    os.chown(root, 1234, 2345)
    store.put("a/b/c", b"x")
    store.put_if_absent("a/d", b"x")
    upload = store.start_upload("a/e")
    upload.put_part(1, b"x")
    left = [*root.rglob("*")]
    assert len(left) == 10
    assert {(path.stat().st_uid, path.stat().st_gid) for path in left} == {(1234, 2345)}
    upload.complete()
    assert (root / "a/e").stat().st_uid == 1234


def test_nothing_is_left_behind(store: FileStore, root: Path) -> None:
    store.put("a/b/c", b"x")
    store.put_if_absent("a/b/c", b"y")
    store.replace("a/b/c", b"z", "another")
    upload = store.start_upload("m")
    upload.put_part(1, b"x")
    upload.complete()
    store.delete(["a/b/c", "m"])
    left = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    assert left == [HIDDEN, f"{HIDDEN}/{disk.LOCK}", f"{HIDDEN}/uploads"]


def test_reading_makes_no_folder(store: FileStore, root: Path) -> None:
    assert list(store.list()) == []
    assert store.head("k") is None
    store.delete(["k"])
    with pytest.raises(ObjectMissing):
        store.get("k")
    assert not root.exists()


def test_a_key_below_an_object_is_refused(store: FileStore) -> None:
    store.put("a", b"x")
    with pytest.raises(StorageError):
        store.put("a/b", b"y")
    with pytest.raises(StorageError):
        store.put_if_absent("a/b", b"y")
    assert store.head("a/b") is None
    with pytest.raises(ObjectMissing):
        store.get("a/b")
    store.delete(["a/b"])
    assert [info.key for info in store.list()] == ["a"]


def test_links_and_special_files_are_no_objects(store: FileStore, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"outside")
    store.put("a", b"x")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path)
    os.mkfifo(root / "fifo")
    assert [info.key for info in store.list()] == ["a"]
    assert store.list_level()[1] == []
    for key in ("link", "fifo"):
        assert store.head(key) is None
        with pytest.raises(StorageError):
            store.get(key)


def test_crashed_writers_leftovers_go_after_a_day(store: FileStore, root: Path) -> None:
    store.put("a", b"x")
    for name, age in (("old", 25), ("young", 1)):
        path = root / HIDDEN / name
        path.write_bytes(b"")
        os.utime(path, (time.time() - age * 3600,) * 2)
    os.utime(root / HIDDEN / disk.LOCK, (0, 0))
    store.start_upload("b")
    assert sorted(path.name for path in (root / HIDDEN).iterdir()) == [disk.LOCK, "uploads", "young"]


def test_without_hard_links(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems have none: the same answers come from under the lock."""

    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    store = FileStore(root)
    assert store.put_if_absent("a/b", b"one") is True
    assert store.put_if_absent("a/b", b"two") is False
    assert store.get("a/b") == b"one"


def test_a_lock_that_is_never_given_back(store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LOCK_SECONDS", 0.01)
    with Disk(root).locked(), pytest.raises(StoreUnavailable, match="held by another process"):
        store.put("a", b"x")
    store.put("a", b"x")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreUnavailable),
        (errno.EDQUOT, StoreUnavailable),
        (errno.EIO, StoreUnavailable),
        (errno.ESTALE, StoreUnavailable),
        (errno.EACCES, StoreDenied),
        (errno.EPERM, StoreDenied),
        (errno.EROFS, StoreDenied),
        (errno.ENAMETOOLONG, StorageError),
        (errno.ENOTDIR, StorageError),
    ],
)
def test_what_the_system_says(number: int, kind: type[StorageError]) -> None:
    error = translate(OSError(number, os.strerror(number)), "writing k")
    assert type(error) is kind
    assert str(error).startswith("writing k")
    assert os.strerror(number) in str(error)


def test_a_name_that_is_too_long(store: FileStore) -> None:
    with pytest.raises(StorageError, match="writing xxx"):
        store.put_if_absent("x" * 300, b"")


def test_a_full_disk_may_pass() -> None:
    """As the kernel says it: /dev/full has no space left, at the first byte."""
    with pytest.raises(StoreUnavailable, match="writing k: the disk is full"), disk.translated("writing k"):
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///srv/backup", "/srv/backup"),
        ("file:///srv/back%20up%23", "/srv/back up#"),
        ("file://localhost/srv", "/srv"),
        ("/srv/plain", "/srv/plain"),
    ],
)
def test_urls(url: str, path: str) -> None:
    assert folder_of(url) == Path(path)


@pytest.mark.parametrize("url", ["file://host/srv", "file:///", "file://", "file:srv", "file:///a?b", "file:///a#b"])
def test_urls_that_name_no_folder(url: str) -> None:
    with pytest.raises(ConfigError):
        folder_of(url)


def test_the_url_can_be_opened_again(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "with space # and %")
    store.put("k", b"x")
    assert FileStore(store.url).get("k") == b"x"
