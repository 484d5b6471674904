"""``wal-push``: durable or an error, never another segment than the name says, never over other content."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgbackup.core.lsn import MIB
from pgbackup.engines.wal.fence import Fence, Superseded
from pgbackup.engines.wal.push import PushResult, push_wal_file
from pgbackup.errors import ConfigError, CorruptObject, StorageError, StoreUnavailable, WrongCluster
from pgbackup.repository import codec_lzop, keys
from pgbackup.repository.catalog_reader import claim_prefix, read_cluster
from pgbackup.repository.codec import Codec, Compression
from pgbackup.repository.documents import ClusterDocument
from pgbackup.storage.memory import MemoryStore
from tests.made_backup import ZSTD
from tests.made_wal import SYSTEM, MadeWal

NAME = "000000010000000000000003"
SECRET = Codec(Compression("zstd", 1), bytes(range(32)))


@pytest.fixture
def wal() -> MadeWal:
    wal = MadeWal(3)
    wal.fill_to(2.5)
    return wal


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def push(store: MemoryStore, tmp_path: Path):
    def run(name: str, content: bytes, codec: Codec = ZSTD, **options) -> PushResult:
        (tmp_path / name).write_bytes(content)
        return push_wal_file(store, codec, tmp_path / name, **options)

    return run


def content(store: MemoryStore, name: str, codec: Codec = ZSTD) -> bytes:
    key = keys.wal(name, codec.extension)
    return codec.decode(key, store.get(key))


@pytest.mark.parametrize("codec", [ZSTD, SECRET, Codec(Compression("lz4")), Codec(Compression("none"))])
def test_a_segment(push, store, wal, codec) -> None:
    result = push(NAME, wal.segment(3), codec)
    assert result == PushResult(NAME, keys.wal(NAME, codec.extension), True, MIB, len(store.get(result.key)))
    assert content(store, NAME, codec) == wal.segment(3)
    assert read_cluster(store) == ClusterDocument(SYSTEM, MIB, 180000)


def test_other_files(push, store, wal) -> None:
    for name, data in (
        ("00000002.history", b"1\t0/500000\treason\n"),
        (f"{NAME}.00000028.backup", b"START WAL LOCATION: 0/3000028\n"),
        (f"{NAME}.partial", wal.segment(3)),
    ):
        assert push(name, data).stored
        assert content(store, name) == data
        assert not push(name, data).stored


def test_a_path_relative_to_the_working_directory(store, wal, tmp_path, monkeypatch) -> None:
    (tmp_path / "pg_wal").mkdir()
    (tmp_path / "pg_wal" / NAME).write_bytes(wal.segment(3))
    monkeypatch.chdir(tmp_path)
    assert push_wal_file(store, ZSTD, Path("pg_wal") / NAME).stored


def test_a_partial_segment_is_always_compressed(push, store, wal) -> None:
    """WAL-G takes a bare <segment>.partial for the segment itself."""
    result = push(f"{NAME}.partial", wal.segment(3), Codec(Compression("none")))
    assert result.key == keys.wal(f"{NAME}.partial", "zst")


def test_the_same_content_again_is_success(push, store, wal) -> None:
    push(NAME, wal.segment(3))
    calls = store.calls["put_if_absent"]
    assert push(NAME, wal.segment(3)) == PushResult(NAME, keys.wal(NAME, "zst"), False, MIB, 0)
    assert not push(NAME, wal.segment(3), Codec(Compression("lz4"))).stored, "stored under another extension"
    assert store.calls["put_if_absent"] == calls


@pytest.mark.parametrize("stored_before", [False, True])
def test_pieces_of_another_server_are_an_error(push, store, wal, stored_before: bool) -> None:
    """Its commits rely on them, and a restore would take the whole segment."""
    if stored_before:
        push(NAME, wal.segment(3))
    piece = keys.piece(NAME, 0, 100, ZSTD.extension)
    store.put(piece, ZSTD.encode(b"y" * 100))
    before = {info.key for info in store.list(keys.WAL)}
    with pytest.raises(WrongCluster, match=piece):
        push(NAME, wal.segment(3))
    assert {info.key for info in store.list(keys.WAL)} == before, "nothing is stored beside them"


def test_a_piece_that_came_while_the_segment_was_stored_is_an_error(push, store, wal) -> None:
    def arrive(operation: str, key: str) -> None:
        if operation == "put_if_absent" and key == keys.wal(NAME, ZSTD.extension):
            store.on_call = None
            store.put(keys.piece(NAME, 0, 100, ZSTD.extension), ZSTD.encode(b"y" * 100))

    store.on_call = arrive
    with pytest.raises(WrongCluster, match="holds other bytes"):
        push(NAME, wal.segment(3))


def test_a_stream_looks_again_once_a_segment_was_pushed(push, store, wal) -> None:
    """What it puts from then on it must compare with the segment, which it has not seen."""
    fence = Fence(store, 1)
    fence.put_up()
    store.put(keys.piece(NAME, 0, 100, ZSTD.extension), ZSTD.encode(wal.segment(3)[:100]))
    push(NAME, wal.segment(3))
    with pytest.raises(Superseded):
        fence.check()
    fence.put_up()
    push(NAME, wal.segment(3))
    fence.check()


def test_pieces_that_a_stream_removes_while_they_are_compared(push, store, wal) -> None:
    piece = keys.piece(NAME, 0, 100, ZSTD.extension)
    store.put(piece, ZSTD.encode(wal.segment(3)[:100]))

    def remove(operation: str, key: str) -> None:
        if operation == "get" and key == piece:
            store.on_call = None
            store.delete([piece])

    store.on_call = remove
    assert push(NAME, wal.segment(3)).stored
    assert store.on_call is None, "it was compared"


@pytest.mark.parametrize("codec", [ZSTD, Codec(Compression("lz4"))], ids=["same extension", "other extension"])
def test_other_content_is_an_error_that_names_both(push, store, wal, codec, tmp_path) -> None:
    push(NAME, wal.segment(3))
    before = store.get(keys.wal(NAME, "zst"))
    with pytest.raises(WrongCluster) as caught:
        push(NAME, wal.segment(3)[:-1] + b"!", codec)
    assert keys.wal(NAME, "zst") in caught.value.message
    assert str(tmp_path / NAME) in caught.value.message
    assert store.get(keys.wal(NAME, "zst")) == before
    assert len(list(store.list(keys.WAL))) == 1


def test_another_history_is_an_error(push, store) -> None:
    push("00000002.history", b"1\t0/500000\treason\n")
    for other in (b"1\t0/500001\treason\n", b"1\t0/500000\treason\n2\t0/6\tx\n", b""):
        with pytest.raises(WrongCluster):
            push("00000002.history", other)


def test_a_damaged_object_is_never_taken_for_the_same(push, store, wal) -> None:
    push(NAME, wal.segment(3))
    key = keys.wal(NAME, "zst")
    store.put(key, store.get(key)[:-1])
    with pytest.raises(CorruptObject, match=key):
        push(NAME, wal.segment(3))


def test_an_object_that_cannot_be_read_is_never_taken_for_the_same(push, store, wal, monkeypatch) -> None:
    monkeypatch.setattr(codec_lzop, "lzallright", None)
    store.put(keys.wal(NAME, "lzo"), b"lzop")
    with pytest.raises(StorageError, match="cannot read"):
        push(NAME, wal.segment(3))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d[:-1], "1048575 bytes"),
        (lambda d: d + b"x", "1048577 bytes"),
        (lambda d: b"", "not a WAL segment"),
        (lambda d: b"x" * MIB, "not a WAL segment"),
        (lambda d: bytes(MIB), "not a WAL segment"),
    ],
)
def test_a_file_that_is_no_segment(push, store, wal, change, problem: str) -> None:
    with pytest.raises(WrongCluster, match=problem):
        push(NAME, change(wal.segment(3)))
    assert list(store.list()) == []


def test_a_segment_under_another_name(push, store, wal) -> None:
    with pytest.raises(WrongCluster, match="not the segment of its name"):
        push("000000010000000000000004", wal.segment(3))
    with pytest.raises(WrongCluster, match="not a WAL segment"):
        push("00000001000000000000FFFF", wal.segment(3))
    assert list(store.list()) == []


def test_the_first_segment_of_a_new_timeline_begins_with_its_parents_pages(push, store, wal) -> None:
    child = wal.branch(2)
    child.fill_to(1.2)
    assert push("000000020000000000000005", child.segment(5)).stored
    with pytest.raises(WrongCluster, match="its timeline is 2"):
        push("000000010000000000000006", child.segment(6))


def test_another_cluster(push, store, wal) -> None:
    claim_prefix(store, ClusterDocument(5, MIB, 180001), ZSTD)
    with pytest.raises(WrongCluster, match="another cluster"):
        push(NAME, wal.segment(3))
    with pytest.raises(WrongCluster, match="segments of 1048576"):
        push(NAME, wal.segment(3), segment_bytes=16 * MIB)
    assert list(store.list(keys.WAL)) == []


def test_another_key(push, store, wal) -> None:
    push(NAME, wal.segment(3), SECRET)
    with pytest.raises(ConfigError, match="encrypted"):
        push("000000010000000000000004", wal.segment(4))
    with pytest.raises(ConfigError, match="encrypted"):
        push("00000002.history", b"1\t0/5\tx\n")


@pytest.mark.parametrize("name", ["x", "postgresql.conf", f"{NAME}.zst", "00000001000000000000000a"])
def test_a_path_that_is_no_wal_file(push, name: str) -> None:
    with pytest.raises(ConfigError, match="not a WAL file"):
        push(name, b"x")


def test_a_file_that_is_not_there(store, tmp_path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        push_wal_file(store, ZSTD, tmp_path / NAME)


def test_a_store_that_fails_leaves_nothing_that_looks_whole(push, store, wal) -> None:
    store.fail_next("put_if_absent", StoreUnavailable("no"), times=10)
    with pytest.raises(StoreUnavailable):
        push(NAME, wal.segment(3))
    assert list(store.list(keys.WAL)) == []


@pytest.mark.parametrize("same", [True, False])
def test_two_pushes_at_once(push, store, wal, same: bool) -> None:
    """Another process stores the name between the look and the put."""
    key = keys.wal(NAME, "zst")
    other = wal.segment(3) if same else wal.segment(3)[:-1] + b"!"

    def other_comes_first(operation: str, called: str) -> None:
        if operation == "put_if_absent" and called == key:
            store.on_call = None
            store.put(key, ZSTD.encode(other))

    store.on_call = other_comes_first
    if same:
        assert not push(NAME, wal.segment(3)).stored
    else:
        with pytest.raises(WrongCluster):
            push(NAME, wal.segment(3))
