"""WAL-E's archives, made with the lzop and gpg programs and restored without WAL-E."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from datetime import UTC

import pytest

from pgbackup.core.retention import RetentionPolicy, plan_expiry
from pgbackup.engines.base import SilentProgress
from pgbackup.engines.restore.wal_fetch import fetch
from pgbackup.engines.verify.verify import choose_backup, verify_backup
from pgbackup.engines.wal.read import WalReader
from pgbackup.errors import CorruptObject, RestoreError
from pgbackup.repository import codec_lzop, keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec, Compression
from tests.fix_gpg import RSA, Keyring
from tests.foreign_archives import put_wal, wal_e_backup
from tests.restoring import SETTINGS, Repository, insert, rows

OURS = Codec(Compression("zstd", 1), bytes(range(32)))
MIXED = Codec(Compression("zstd", 1), bytes(range(32)), accept_gnupg=True)


def lzop(data: bytes) -> bytes:
    if shutil.which("lzop") is None:
        pytest.skip("lzop is not on this machine")
    return subprocess.run(["lzop", "-c"], input=data, capture_output=True, check=True).stdout


@pytest.fixture(params=["plain", "gpg"])
def encode(request: pytest.FixtureRequest, own_keyring: Keyring):
    lzop(b"")
    return lzop if request.param == "plain" else lambda data: own_keyring.encrypt(lzop(data), RSA)


@pytest.fixture
def source(make_server):
    server = make_server(settings=SETTINGS)
    server.execute("CREATE TABLE t (n int)")
    return server


def archived(make_server, source, encode, **options) -> tuple[Repository, str]:
    repository = Repository(make_server, Codec(Compression("zstd", 1)))
    insert(source, 1)
    name = wal_e_backup(repository.store, source, encode, while_copying=lambda: insert(source, 2) and None, **options)
    insert(source, 3)
    put_wal(repository.store, source, ".lzo", encode)
    return repository, name


def started(repository: Repository, result, major: int):
    """The operator supplies what WAL-E does not store: here, who may connect."""
    hba = result.directory / "pg_hba.conf"
    hba.write_text("local all all trust\nhost all all 127.0.0.1/32 trust\n")
    server = repository.factory.over(result.directory, major)
    server.wait_promoted()
    return server


def verified(repository: Repository, name: str):
    catalog = read_catalog(repository.store, repository.codec)
    return verify_backup(
        repository.store, repository.codec, catalog, choose_backup(catalog, name), progress=SilentProgress()
    )


def test_restored_with_all_rows(make_server, source, encode):
    repository, name = archived(make_server, source, encode)
    catalog = read_catalog(repository.store, repository.codec)
    [backup] = catalog.backups
    assert (backup.name, backup.engine, backup.pg_major) == (name, "wal-e", source.major)
    assert catalog.why_not_restorable(backup) == ""
    assert [r.backup for r in catalog.recoverable()] == [name]
    report = verified(repository, name)
    assert report.ok, report.findings
    assert any("no manifest" in note for note in report.notes)
    result = repository.restore()
    assert not result.verified
    assert "no manifest" in "\n".join(result.notes)
    assert rows(started(repository, result, source.major)) == [1, 2, 3]


def test_missing_configuration_files_are_reported_with_what_to_supply(make_server, source):
    """WAL-E stores none of the three; a server would not start, or would let nobody in."""
    repository, _ = archived(make_server, source, lzop)
    result = repository.restore()
    notes = {note.split(":")[0]: note for note in result.notes if note.startswith("wrote ")}
    assert list(notes) == [
        "wrote a minimal postgresql.conf", "wrote a minimal pg_hba.conf", "wrote an empty pg_ident.conf",
    ]  # fmt: skip
    assert all("is not in the backup; supply yours" in note for note in notes.values())
    assert "listens on no address and loads no library" in notes["wrote a minimal postgresql.conf"]
    assert "local users only, each as the role of that name" in notes["wrote a minimal pg_hba.conf"]
    for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
        assert (result.directory / name).is_file()
    assert (result.directory / "postgresql.auto.conf").is_file(), "what WAL-E does store"

    files = repository.restore(files_only=True, directory=make_server.new_directory("files"))
    assert "not in the backup: postgresql.conf, pg_hba.conf, pg_ident.conf; supply them before the server starts" in (
        files.notes
    )
    assert not (files.directory / "postgresql.conf").exists()


def test_wal_fetch_serves_its_segments_and_says_what_is_not_there(make_server, source, own_keyring, tmp_path):
    repository, _ = archived(make_server, source, lambda data: own_keyring.encrypt(lzop(data), RSA))
    key = next(info.key for info in repository.store.list(keys.WAL))
    name = key.removeprefix(keys.WAL).removesuffix(".lzo")
    fetch(WalReader(repository.store, MIXED), name, tmp_path / "segment")
    assert (tmp_path / "segment").read_bytes() == (source.data_directory / "pg_wal" / name).read_bytes()


def test_in_one_prefix_with_our_own_encrypted_backups(make_server, source, own_keyring):
    """The move from WAL-E: its backups, gpg and all, then ours with a key; each is read by what it is, with a word."""
    repository, theirs = archived(make_server, source, lambda data: own_keyring.encrypt(lzop(data), RSA))
    with pytest.raises(CorruptObject, match="encrypted with GnuPG, not with the encryption key"):
        Repository(make_server, OURS, repository.store).restore(directory=make_server.new_directory("refused"))
    mixed = Repository(make_server, MIXED, repository.store)
    ours = mixed.archiver.backup(source)
    insert(source, 4)
    mixed.archiver.wal(source)
    catalog = read_catalog(mixed.store, MIXED)
    assert [b.name for b in catalog.backups] == [theirs, ours]
    assert [catalog.why_not_restorable(b) for b in catalog.backups] == ["", ""]
    for name in (theirs, ours):
        server = started(mixed, mixed.restore(backup=name), source.major)
        assert rows(server) == [1, 2, 3, 4]
        server.stop("immediate")


def test_what_was_plain_needs_a_word_once_there_is_a_key(make_server, source):
    repository, _ = archived(make_server, source, lzop)
    with pytest.raises(CorruptObject, match="not encrypted, but an encryption key is configured"):
        Repository(make_server, OURS, repository.store).restore()
    lenient = Repository(
        make_server, Codec(Compression("zstd", 1), bytes(32), accept_unencrypted=True), repository.store
    )
    assert rows(started(lenient, lenient.restore(directory=make_server.new_directory("again")), source.major)) == [
        1,
        2,
        3,
    ]


def test_links_stay_inside(make_server, source):
    links = {
        "pg_wal_old": "pg_wal", "base/etc": "/etc", "escape": "../../etc", "two": "base/three",
        "base/three": "../../..", "nowhere": "not/there", "postgresql.conf": "/etc/postgresql/postgresql.conf",
    }  # fmt: skip
    repository, _ = archived(make_server, source, lzop, links=links)
    result = repository.restore()
    made = {str(p.relative_to(result.directory)) for p in result.directory.rglob("*") if p.is_symlink()}
    assert made == {"pg_wal_old"}
    [note] = [note for note in result.notes if "were not made" in note]
    assert "base/etc -> /etc" in note
    assert "postgresql.conf -> /etc/postgresql/postgresql.conf" in note
    assert (result.directory / "postgresql.conf").is_file()
    assert rows(started(repository, result, source.major)) == [1, 2, 3]


def test_tablespaces(make_server, source):
    place = make_server.new_directory("space")
    source.execute(f"CREATE TABLESPACE s LOCATION '{place}'")
    source.execute("CREATE TABLE u TABLESPACE s AS SELECT generate_series(1, 5000) AS n")
    source.execute("CHECKPOINT")
    repository, _ = archived(make_server, source, lzop)
    new = make_server.new_directory("new-space")
    server = started(repository, repository.restore(tablespace_map={str(place): str(new)}), source.major)
    assert server.execute("SELECT count(*) FROM u") == [(5000,)]
    assert rows(server) == [1, 2, 3]


@pytest.mark.parametrize("damage", ["flip", "cut", "middle part", "last part", "segment", "no control", "no label"])
def test_every_damage_is_found(make_server, source, damage):
    repository, name = archived(make_server, source, lzop)
    store, folder = repository.store, f"basebackups_005/{name}/tar_partitions"
    part = f"{folder}/part_{1 if damage in ('flip', 'cut', 'middle part') else 2:08d}.tar.lzo"
    data = store.get(part)
    if damage == "flip":
        store.put(part, _flipped(data, 5000))
    elif damage == "cut":
        store.put(part, data[:-5])
    elif damage in ("middle part", "last part"):
        store.delete([part])
    elif damage == "segment":
        segment = keys.wal(f"{name[5:29]}", "lzo")
        store.put(segment, lzop(bytes(16 << 20)))
    else:
        _drop(repository, folder, "global/pg_control" if damage == "no control" else "backup_label")
    assert not verified(repository, name).ok
    if damage != "last part":
        with pytest.raises((CorruptObject, RestoreError)):
            repository.restore()


def _flipped(data: bytes, at: int) -> bytes:
    """One bit is flipped at that offset, or at the next where it matters to lzop: some make the same bytes again."""
    whole = _unlzop(data)
    for offset in range(at, len(data)):
        damaged = data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]
        if _unlzop(damaged) != whole:
            return damaged
    raise AssertionError("no bit matters")


def _unlzop(data: bytes) -> bytes | None:
    done = subprocess.run(["lzop", "-d", "-c"], input=data, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _drop(repository: Repository, folder: str, name: str) -> None:
    """Take one file out of the backup's tars."""
    for number in range(3):
        key = f"{folder}/part_{number:08d}.tar.lzo"
        content = subprocess.run(
            ["lzop", "-dc"], input=repository.store.get(key), capture_output=True, check=True
        ).stdout
        out = io.BytesIO()
        with tarfile.open(fileobj=io.BytesIO(content)) as old, tarfile.open(fileobj=out, mode="w") as new:
            for member in old:
                if member.name != name:
                    new.addfile(member, old.extractfile(member) if member.isfile() else None)
        repository.store.put(key, lzop(out.getvalue()))


def test_without_the_extra_nothing_is_restored_and_nothing_expires(make_server, source, monkeypatch):
    repository, name = archived(make_server, source, lzop)
    monkeypatch.setattr(codec_lzop, "lzallright", None)
    catalog = read_catalog(repository.store, repository.codec)
    assert "library that is not installed" in catalog.why_not_restorable(catalog.backups[0])
    with pytest.raises(RestoreError) as refused:
        repository.restore(backup=name)
    assert "pip install 'pgbackup[wal-e]'" in refused.value.hint
    mixed = Repository(make_server, repository.codec, repository.store)
    mixed.archiver.backup(source)
    mixed.archiver.wal(source)
    catalog = read_catalog(mixed.store, mixed.codec)
    plan = plan_expiry(catalog, RetentionPolicy(), catalog.backups[-1].finished, UTC)
    assert plan.removed == ()
    assert "pip install" in plan.hint


def test_what_was_taken_offline_says_why_it_cannot_be_restored(make_server, source):
    repository, name = archived(make_server, source, lzop)
    key = keys.sentinel(name)
    offline = "base_000000010000000000000030_00000030"
    document = json.loads(repository.store.get(key)) | {
        "wal_segment_backup_stop": "000000010000000000000030", "wal_segment_offset_backup_stop": "00000030",
    }  # fmt: skip
    repository.store.put(keys.sentinel(offline), json.dumps(document).encode())
    backup = read_catalog(repository.store, repository.codec).backup(offline)
    assert backup is not None
    assert "--while-offline" in backup.problem
    assert backup.needs
