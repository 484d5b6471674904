"""Backups as WAL-G lays them out, in its remote and in its local mode: other names, other tars, no manifest."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

import pytest

from pgbackup.errors import RestoreError
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from tests.restoring import SETTINGS, Repository, insert, rows

LZ4 = Codec(Compression("lz4"))


@pytest.fixture
def taken(make_server) -> tuple[Repository, str, int]:
    """A backup of ours, WAL beside it, all in lz4."""
    repository = Repository(make_server, LZ4)
    source = make_server(settings=SETTINGS)
    source.execute("CREATE TABLE t (n int)")
    name = repository.archiver.backup(source, part_bytes=1 << 30)
    insert(source, 1)
    source.execute("SELECT pg_switch_wal()")
    repository.archiver.wal(source)
    repository.store.delete([keys.manifest(name, "lz4"), keys.CLUSTER])
    strip_user_data(repository, name)
    return repository, name, source.major


def strip_user_data(repository: Repository, name: str) -> None:
    for key, field in ((keys.sentinel(name), "UserData"), (keys.metadata(name), "user_data")):
        document = json.loads(repository.store.get(key))
        del document[field]
        repository.store.put(key, json.dumps(document).encode())


def members(repository: Repository, key: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    plain = LZ4.decode(key, repository.store.get(key))
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        for member in tar:
            yield member, tar.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]


def put_tar(repository: Repository, key: str, content, *, tar_format: int, terminated: bool = True) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        size = 0
        for member, data in content:
            tar.addfile(member, io.BytesIO(data))
            size = member.offset = tar.offset - (-len(data) % 512)
    data = buffer.getvalue() if terminated else buffer.getvalue()[:size]
    repository.store.put(key, LZ4.encode(data))


def test_walg_remote_mode(taken):
    """Tars without an end, the control file in a part and again on its own."""
    repository, name, major = taken
    control = list(members(repository, keys.control_tar(name, "lz4")))
    part = list(members(repository, keys.part(name, 1, "lz4")))
    put_tar(repository, keys.part(name, 1, "lz4"), part + control, tar_format=tarfile.USTAR_FORMAT, terminated=False)
    put_tar(repository, keys.control_tar(name, "lz4"), control, tar_format=tarfile.USTAR_FORMAT, terminated=False)
    result = repository.restore()
    assert not result.verified
    assert any("no manifest" in note for note in result.notes)
    server = repository.factory.over(result.directory, major)
    server.wait_promoted()
    assert rows(server) == [1]


def test_walg_local_mode(taken):
    """Leading slashes, a root entry, the label in a tar of its own, empty directories left out, a junk link."""
    repository, name, major = taken
    labels, data = [], []
    root = tarfile.TarInfo("/")
    root.type, root.mode = tarfile.DIRTYPE, 0o700
    junk = tarfile.TarInfo("/pg_wal_link")
    junk.type, junk.linkname = tarfile.SYMTYPE, "/etc/passwd"
    data += [(root, b""), (junk, b"")]
    for member, content in members(repository, keys.part(name, 1, "lz4")):
        if member.name in ("backup_label", "tablespace_map"):
            labels.append((member, content))
        elif not (member.isdir() and member.name in ("pg_notify", "pg_replslot", "pg_twophase", "pg_tblspc")):
            member.name = "/" + member.name
            data.append((member, content))
    put_tar(repository, keys.part(name, 1, "lz4"), data, tar_format=tarfile.PAX_FORMAT)
    key = f"{keys.tar_folder(name)}backup_label.tar.lz4"
    put_tar(repository, key, labels, tar_format=tarfile.PAX_FORMAT)
    result = repository.restore()
    assert not (result.directory / "pg_wal_link").exists()
    assert any("links were left out" in note and "pg_wal_link" in note for note in result.notes)
    server = repository.factory.over(result.directory, major)
    server.wait_promoted()
    assert rows(server) == [1]


def test_a_backup_without_its_label_is_refused(taken):
    repository, name, _ = taken
    part = [row for row in members(repository, keys.part(name, 1, "lz4")) if row[0].name != "backup_label"]
    put_tar(repository, keys.part(name, 1, "lz4"), part, tar_format=tarfile.USTAR_FORMAT)
    directory = repository.factory.new_directory("target")
    with pytest.raises(RestoreError, match="brought no backup_label"):
        repository.restore(directory=directory)
    assert not (directory / "global" / "pg_control").exists()


def test_a_stray_object_is_refused(taken):
    repository, name, _ = taken
    repository.store.put(f"{keys.tar_folder(name)}notes.txt", b"hello")
    with pytest.raises(RestoreError, match="does not belong"):
        repository.restore()


def test_a_delta_is_refused(taken):
    repository, name, _ = taken
    key = keys.sentinel(name)
    document = json.loads(repository.store.get(key))
    document |= {"DeltaFrom": name, "DeltaFullName": name, "DeltaCount": 1, "DeltaLSN": document["LSN"]}
    repository.store.put(key, json.dumps(document).encode())
    with pytest.raises(RestoreError, match="cannot be restored"):
        repository.restore(backup=name)
