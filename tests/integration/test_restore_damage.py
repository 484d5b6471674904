"""Damaged, swapped and missing objects: each is refused by its key, and nothing half-restored ever starts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pgbackup.errors import CorruptObject, PgbackupError, RestoreError
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from tests.restoring import SETTINGS, Repository, assert_does_not_start, filled, rows

CODECS = {
    "zstd": Codec(Compression("zstd", 1)),
    "lz4": Codec(Compression("lz4")),
    "none": Codec(Compression("none")),
    "encrypted": Codec(Compression("zstd", 1), b"s" * 32),
}


@pytest.fixture
def source(make_server) -> ThrowawayServer:
    server = make_server(settings=SETTINGS)
    server.execute("CREATE TABLE t (n int)")
    return server


@pytest.fixture
def repository(make_server, source) -> Repository:
    return filled(Repository(make_server), source)


def flip(data: bytes) -> bytes:
    where = min(len(data) // 2, 300)
    return data[:where] + bytes([data[where] ^ 0x10]) + data[where + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped bit": flip,
    "cut in half": lambda data: data[: len(data) // 2],
    "cut by one byte": lambda data: data[:-1],
    "empty": lambda data: b"",
    "trailing byte": lambda data: data + b"x",
}


# Plain tars end with zeros that nobody misses, a manifest with a newline; a bit may be of a header's unused field.
UNPROVEN = {
    ("flipped bit", "part"),
    ("flipped bit", "control"),
    ("cut by one byte", "part"),
    ("cut by one byte", "control"),
    ("cut by one byte", "manifest"),
}


BRIEFLY = {"lz4": ("flipped bit", "cut by one byte"), "encrypted": ("flipped bit", "cut by one byte", "trailing byte")}


def needed_segments(repository: Repository) -> list[str]:
    """The whole segments from the backup's start on."""
    infos, _ = repository.store.list_level(keys.BASEBACKUPS)
    first = infos[0].key.removeprefix(f"{keys.BASEBACKUPS}base_")[:24]
    return [i.key for i in repository.store.list(keys.WAL) if ".partial/" not in i.key and i.key >= keys.WAL + first]


def object_keys(repository: Repository) -> dict[str, str]:
    infos = [info for info in repository.store.list("") if not info.key.startswith(keys.BOOKKEEPING)]
    largest = max((i for i in infos if "part_" in i.key), key=lambda i: i.size_bytes)
    return {
        "part": largest.key,
        "control": next(i.key for i in infos if "pg_control.tar" in i.key),
        "manifest": next(i.key for i in infos if "backup_manifest" in i.key),
        "segment": needed_segments(repository)[0],
        "piece": next(i.key for i in infos if ".partial/" in i.key),
    }


@pytest.mark.parametrize("codec", CODECS)
def test_every_damage_is_refused_with_the_key(make_server, source, codec):
    repository = filled(Repository(make_server, CODECS[codec]), source)
    store = repository.store
    for what, key in object_keys(repository).items():
        whole = store.get(key)
        for how, damage in DAMAGE.items():
            if (codec == "none" and (how, what) in UNPROVEN) or (codec in BRIEFLY and how not in BRIEFLY[codec]):
                continue
            store.put(key, damage(whole))
            directory = make_server.new_directory(f"{what} {how}")
            error = refusal(repository, directory)
            assert error is not None, f"{what}: {how} was not refused"
            if (how, what) == ("empty", "piece"):
                # Its name alone shows that there was more.
                assert "had been confirmed" in str(error)
            else:
                assert isinstance(error, CorruptObject), (what, how, error)
                assert key.startswith(error.key), (what, how, error)
            assert "backup" in error.hint or "--accept-loss" in error.hint, (what, how, error.hint)
            assert not (directory / "global" / "pg_control").exists(), (what, how)
            shutil.rmtree(directory)
        store.put(key, whole)
    assert rows(repository.recovered(major=source.major)) == [1, 2, 3]


def refusal(repository: Repository, directory: Path) -> PgbackupError | None:
    try:
        repository.restore(directory=directory)
    except PgbackupError as error:
        return error
    return None


def test_swapped_objects_are_refused(repository, source):
    store = repository.store
    parts = [info.key for info in store.list("") if "part_" in info.key]
    segments = needed_segments(repository)
    control = object_keys(repository)["control"]
    pairs = [(parts[0], parts[1]), (parts[-1], control), (control, parts[0]), (segments[0], segments[-1])]
    for key, other in pairs:
        content = store.get(other)
        whole = store.get(key)
        store.put(key, content)
        directory = repository.factory.new_directory(f"swapped-{len(key)}-{time.monotonic()}")
        with pytest.raises(CorruptObject):
            repository.restore(directory=directory)
        assert_does_not_start(directory, source, repository)
        store.put(key, whole)


def test_a_file_of_another_moment_is_refused(repository, source):
    """The tar is whole, but a file in it is not the one that the server sent."""
    import io
    import tarfile

    store, codec = repository.store, repository.codec
    for info in list(store.list("")):
        if "part_" not in info.key:
            continue
        plain = codec.decode(info.key, store.get(info.key))
        with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
            member = next((m for m in tar if m.isfile() and m.size >= 8192), None)
        if member is None:
            continue
        where = member.offset_data + 100
        changed = plain[:where] + bytes([plain[where] ^ 1]) + plain[where + 1 :]
        store.put(info.key, codec.encode(changed))
        directory = repository.factory.new_directory("changed")
        with pytest.raises(CorruptObject, match="checksum") as caught:
            repository.restore(directory=directory)
        assert member.name in str(caught.value)
        assert_does_not_start(directory, source, repository)
        return
    pytest.fail("no file to change")


def test_missing_objects_are_refused(repository, source):
    store = repository.store
    found = object_keys(repository)
    for what in ("part", "control", "segment"):
        whole = store.get(found[what])
        store.delete([found[what]])
        directory = repository.factory.new_directory(f"missing {what}")
        with pytest.raises((CorruptObject, RestoreError)):
            repository.restore(directory=directory)
        assert not (directory / "global" / "pg_control").exists()
        store.put(found[what], whole)


def test_leftovers_of_another_backup_are_refused(repository, source):
    store = repository.store
    part = object_keys(repository)["part"]
    store.put(keys.part(part.split("/")[1], 777, "zst"), store.get(part))
    with pytest.raises(CorruptObject, match="brought already"):
        repository.restore()
