"""WAL-G's archives in every compression and encryption, full and delta, made by independent means."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import struct
import tarfile
from dataclasses import replace
from datetime import UTC

import brotli
import lz4.frame
import pytest
import zstandard
from nacl import bindings as sodium

from pgbackup.core.recovery_target import Target
from pgbackup.core.retention import RetentionPolicy, plan_expiry
from pgbackup.engines.base import SilentProgress
from pgbackup.engines.verify.verify import choose_backup, verify_backup
from pgbackup.errors import CorruptObject, RestoreError
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec, Compression
from tests.fix_gpg import CURVE, RSA, Keyring
from tests.foreign_archives import WalG, make_tar, put_wal
from tests.restoring import SETTINGS, Repository, insert, rows

KEY = bytes(range(32))
PLAIN, SECRET = Codec(Compression("zstd", 1)), Codec(Compression("zstd", 1), KEY, accept_gnupg=True)
COMPRESSIONS = {
    ".lz4": lambda data: lz4.frame.compress(data, block_size=7, block_linked=False, content_checksum=True),
    ".zst": zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress,
    ".br": lambda data: brotli.compress(data, quality=1),
    ".lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "preset": 0}]),
    ".gz": lambda data: gzip.compress(data, 1),
    ".": bytes,
    "": bytes,
}


def libsodium(data: bytes) -> bytes:
    """WAL-G's chunks: 8192 bytes each, the last one shorter and final."""
    state = sodium.crypto_secretstream_xchacha20poly1305_state()
    out = [sodium.crypto_secretstream_xchacha20poly1305_init_push(state, KEY)]
    full = len(data) // 8192 * 8192
    for at in range(0, full, 8192):
        out.append(sodium.crypto_secretstream_xchacha20poly1305_push(state, data[at : at + 8192]))
    final = sodium.crypto_secretstream_xchacha20poly1305_TAG_FINAL
    return b"".join((*out, sodium.crypto_secretstream_xchacha20poly1305_push(state, data[full:], None, final)))


@pytest.fixture
def source(make_server):
    server = make_server(settings={**SETTINGS, "checkpoint_timeout": "1h", "max_wal_size": "4GB"})
    server.execute("CREATE TABLE t (n int)")
    server.execute("CREATE TABLE big AS SELECT n, repeat('x', 100) AS text FROM generate_series(1, 20000) AS n")
    server.execute("CREATE TABLE still AS SELECT generate_series(1, 20000) AS n")
    server.execute("CHECKPOINT")
    return server


def checked(server) -> tuple[list[int], int, int, int]:
    """What is in the tables; index and heap read in full."""
    counts = server.execute("SELECT (SELECT sum(n) FROM big), (SELECT sum(n) FROM still), (SELECT count(*) FROM big)")
    return rows(server), *map(int, counts[0])


def verified(repository: Repository, name: str | None = None, *, wal: str = "needed"):
    catalog = read_catalog(repository.store, repository.codec)
    backup = choose_backup(catalog, name)
    return verify_backup(repository.store, repository.codec, catalog, backup, progress=SilentProgress(), wal=wal)  # type: ignore[arg-type]


@pytest.mark.parametrize("extension", COMPRESSIONS)
def test_every_compression(make_server, source, extension):
    repository = Repository(make_server, PLAIN)
    insert(source, 1)
    name = WalG(repository.store, source, extension, COMPRESSIONS[extension]).full()
    insert(source, 2)
    put_wal(repository.store, source, extension, COMPRESSIONS[extension])
    report = verified(repository)
    assert report.ok, report.findings
    assert any("without checksums" in n for n in report.notes) == (extension in (".br", ".lzma", ".", ""))
    server = repository.recovered(major=source.major, backup=name)
    assert rows(server) == [1, 2]


@pytest.mark.parametrize("encryption", ["libsodium", "rsa", "curve"])
@pytest.mark.parametrize("codec", [PLAIN, SECRET], ids=["without-key", "with-key"])
def test_every_encryption(make_server, source, own_keyring: Keyring, encryption, codec):
    def encode(data: bytes) -> bytes:
        stored = COMPRESSIONS[".lz4"](data)
        if encryption == "libsodium":
            return libsodium(stored)
        return own_keyring.encrypt(stored, RSA if encryption == "rsa" else CURVE)

    repository = Repository(make_server, codec)
    insert(source, 1)
    WalG(repository.store, source, ".lz4", encode).full()
    insert(source, 2)
    put_wal(repository.store, source, ".lz4", encode)
    if encryption == "libsodium" and codec is PLAIN:
        assert not verified(repository).ok
        with pytest.raises(CorruptObject, match="encrypted"):
            repository.restore()
        return
    assert verified(repository).ok
    assert rows(repository.recovered(major=source.major)) == [1, 2]


def changed(source, n: int) -> None:
    """Pages of a large table change, it grows, a table goes and another comes."""
    insert(source, n)
    source.execute(f"UPDATE big SET n = n WHERE n % 4000 = {n}")
    source.execute(f"INSERT INTO big SELECT 100000 * {n} + g, 'y' FROM generate_series(1, 500) AS g")
    source.execute(f"DROP TABLE IF EXISTS gone{n - 1}; CREATE TABLE gone{n} AS SELECT 1 AS n")
    source.execute("CHECKPOINT")


def chain_of_three(make_server, source, *, codec: Codec = PLAIN, encode=COMPRESSIONS[".lz4"], **options):
    repository = Repository(make_server, codec)
    tool = WalG(repository.store, source, ".lz4", encode, **options)
    truth = {}
    for n in (1, 2, 3):
        changed(source, n)
        if n == 3:
            for command in ("DELETE FROM big WHERE n > 15000", "VACUUM big", "CHECKPOINT"):  # the file shrinks
                source.execute(command)
        name = tool.full() if n == 1 else tool.delta()
        source.execute("SELECT pg_switch_wal()")
        truth[name] = checked(source)
        put_wal(repository.store, source, ".lz4", encode)
    return repository, tool, truth


@pytest.mark.parametrize("old", [False, True], ids=["3.x", "0.2"])
def test_a_chain_of_deltas(make_server, source, old):
    repository, tool, truth = chain_of_three(make_server, source, old=old)
    catalog = read_catalog(repository.store, PLAIN)
    assert [len(catalog.chain(catalog.backup(name))) for name in truth] == [1, 2, 3]  # type: ignore[arg-type]
    assert [catalog.why_not_restorable(b) for b in catalog.backups] == ["", "", ""]
    entries = tool.made[-1][2]["Files"] if old else json.loads(
        repository.store.get(keys.files_metadata(tool.made[-1][0]))
    )["Files"]  # fmt: skip
    assert any(e["IsIncremented"] for e in entries.values())
    assert sum(e["IsSkipped"] for e in entries.values()) > 100
    for name, wanted in truth.items():
        report = verified(repository, name)
        assert report.ok, report.findings
        server = repository.recovered(Target("immediate"), major=source.major, backup=name)
        assert checked(server) == wanted, name
        server.stop("immediate")
    newest = next(reversed(truth))
    assert checked(repository.recovered(major=source.major, backup=newest)) == checked(source)


def test_encrypted_deltas_on_a_tablespace(make_server, source):
    place = make_server.new_directory("space")
    source.execute(f"CREATE TABLESPACE s LOCATION '{place}'")
    source.execute("CREATE TABLE u TABLESPACE s AS SELECT generate_series(1, 9000) AS n")
    repository = Repository(make_server, SECRET)
    tool = WalG(repository.store, source, ".lz4", lambda data: libsodium(COMPRESSIONS[".lz4"](data)))
    source.execute("CHECKPOINT")
    tool.full()
    source.execute("UPDATE u SET n = -n WHERE n % 1000 = 0; CHECKPOINT")
    name = tool.delta()
    spec = {"base_prefix": str(source.data_directory), "tablespaces": []}
    for folder in (source.data_directory / "pg_tblspc").iterdir():
        spec["tablespaces"].append(folder.name)
        spec[folder.name] = {"loc": str(place), "link": f"pg_tblspc/{folder.name}"}
    for made, _, sentinel in tool.made:
        repository.store.put(keys.sentinel(made), json.dumps(sentinel | {"Spec": spec}).encode())
    put_wal(repository.store, source, ".lz4", lambda data: libsodium(COMPRESSIONS[".lz4"](data)))
    new = make_server.new_directory("new-space")
    server = repository.recovered(major=source.major, backup=name, tablespace_map={str(place): str(new)})
    assert server.execute("SELECT count(*), min(n) FROM u") == [(9000, -9000)]


# -- remote mode ------------------------------------------------------------------------------------------------------


def in_remote_mode(tool: WalG) -> str:
    """The same backup as WAL-G's remote mode has it: no slashes, the label among the files, tars without an end."""
    name, taken, _ = tool.made[-1]
    folder = f"basebackups_005/{name}/tar_partitions"
    tool.store.delete([info.key for info in tool.store.list(folder)])
    files: list[tuple[str, bytes | None]] = [("backup_label", taken.label), *taken.files.items()]
    whole = make_tar(files, form=tarfile.USTAR_FORMAT)
    with tarfile.open(fileobj=io.BytesIO(whole)) as read:
        last = read.getmembers()[-1]
    tool.store.put(f"{folder}/part_001.tar.lz4", tool.encode(whole[: last.offset_data + last.size]))
    control = make_tar([("global/pg_control", taken.files["global/pg_control"])], form=tarfile.USTAR_FORMAT)
    tool.store.put(f"{folder}/pg_control.tar.lz4", tool.encode(control[: 512 + 8192]))
    entries = {path: {} for path, data in files if data is not None}
    tool.store.put(keys.files_metadata(name), json.dumps({"Files": entries}).encode())
    return name


def test_remote_mode(make_server, source):
    repository = Repository(make_server, PLAIN)
    insert(source, 1)
    tool = WalG(repository.store, source, ".lz4", COMPRESSIONS[".lz4"])
    tool.full()
    name = in_remote_mode(tool)
    put_wal(repository.store, source, ".lz4", COMPRESSIONS[".lz4"])
    assert verified(repository).ok
    assert rows(repository.recovered(major=source.major)) == [1]
    part = f"basebackups_005/{name}/tar_partitions/part_001.tar.lz4"
    content = lz4.frame.decompress(repository.store.get(part))
    for lost in (1, 600, 100_000):
        repository.store.put(part, COMPRESSIONS[".lz4"](content[:-lost]))
        assert not verified(repository, wal="none").ok
        with pytest.raises(CorruptObject):
            repository.restore()


# -- damage -----------------------------------------------------------------------------------------------------------


def _rewrite_list(repository, name, change) -> None:
    document = json.loads(repository.store.get(keys.files_metadata(name)))
    change(document["Files"])
    repository.store.put(keys.files_metadata(name), json.dumps(document).encode())


def _first(files, flag: str) -> str:
    return next(path for path in files if files[path][flag])


def _one_increment(repository, name, change) -> None:
    """Change the content of the first increment of a delta."""
    listed = json.loads(repository.store.get(keys.files_metadata(name)))["Files"]
    wanted, done = _first(listed, "IsIncremented"), 0
    for number in (1, 2, 3):
        key = f"basebackups_005/{name}/tar_partitions/part_{number:03d}.tar.lz4"
        with tarfile.open(fileobj=io.BytesIO(lz4.frame.decompress(repository.store.get(key)))) as tar:
            members = [(m.name, tar.extractfile(m).read() if m.isfile() else None) for m in tar]  # type: ignore[union-attr]
        if any("/" + path.lstrip("/") == wanted for path, _ in members):
            members = [(p, change(d) if "/" + p.lstrip("/") == wanted else d) for p, d in members]  # type: ignore[misc]
            repository.store.put(key, COMPRESSIONS[".lz4"](make_tar(members, form=tarfile.PAX_FORMAT)))
            done += 1
    assert done == 1


DAMAGE = {
    "a part of the full backup": lambda r, full, mid, new: r.store.delete([keys.part(full, 2, "lz4")]),
    "a part of the delta": lambda r, full, mid, new: r.store.delete([keys.part(new, 2, "lz4")]),
    "the parent's seal": lambda r, full, mid, new: r.store.delete([keys.sentinel(mid)]),
    "the list of a delta": lambda r, full, mid, new: r.store.delete([keys.files_metadata(mid)]),
    "a cut list": lambda r, full, mid, new: r.store.put(
        keys.files_metadata(new), r.store.get(keys.files_metadata(new))[:-100]
    ),
    "the control file": lambda r, full, mid, new: r.store.delete([keys.control_tar(new, "lz4")]),
    "the label": lambda r, full, mid, new: r.store.delete([f"{keys.tar_folder(new)}backup_label.tar.lz4"]),
    "another one's label": lambda r, full, mid, new: r.store.put(
        f"{keys.tar_folder(new)}backup_label.tar.lz4", r.store.get(f"{keys.tar_folder(full)}backup_label.tar.lz4")
    ),
    "a file that the parent does not list": lambda r, full, mid, new: _rewrite_list(
        r, mid, lambda files: files.pop(_first(files, "IsSkipped"))
    ),
    "a skipped file in the full backup": lambda r, full, mid, new: _rewrite_list(
        r, full, lambda files: files["/PG_VERSION"].update(IsSkipped=True)
    ),
    "another parent of that name": lambda r, full, mid, new: r.store.put(
        keys.sentinel(mid),
        json.dumps(json.loads(r.store.get(keys.sentinel(mid))) | {"LSN": 0x2000028}).encode(),
    ),
    "the magic of an increment": lambda r, full, mid, new: _one_increment(r, new, lambda d: b"wi2\x55" + d[4:]),
    "the count of an increment": lambda r, full, mid, new: _one_increment(
        r, new, lambda d: d[:12] + struct.pack("<I", 1 << 30) + d[16:]
    ),
    "the order of an increment": lambda r, full, mid, new: _one_increment(
        r, new, lambda d: d[:16] + b"\xff\xff\xff\xff" + d[20:]
    ),
    "the end of an increment": lambda r, full, mid, new: _one_increment(r, new, lambda d: d[:-1]),
    "something behind an increment": lambda r, full, mid, new: _one_increment(r, new, lambda d: d + b"x"),
    "a part twice": lambda r, full, mid, new: r.store.put(
        keys.part(new, 9, "lz4"), r.store.get(keys.part(new, 1, "lz4"))
    ),
    "a flipped bit in the full backup": lambda r, full, mid, new: r.store.put(
        keys.part(full, 1, "lz4"), _flipped(r.store.get(keys.part(full, 1, "lz4")))
    ),
}  # fmt: skip


def _flipped(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def test_every_damage_of_a_chain_is_found(make_server, source):
    """By verify, and by a restore, which then leaves nothing that starts."""
    repository, _, truth = chain_of_three(make_server, source)
    full, middle, newest = truth
    whole = {info.key: repository.store.get(info.key) for info in repository.store.list("")}
    for what, damage in DAMAGE.items():
        damage(repository, full, middle, newest)
        assert not verified(repository, newest, wal="none").ok, what
        directory = make_server.new_directory(f"damaged-{what.replace(' ', '-')}")
        with pytest.raises((CorruptObject, RestoreError)):
            assert not repository.restore(backup=newest, directory=directory), what
        assert not (directory / "global" / "pg_control").exists(), what
        for info in list(repository.store.list("")):
            if info.key not in whole:
                repository.store.delete([info.key])
        for key, data in whole.items():
            repository.store.put(key, data)
    assert verified(repository, newest, wal="none").ok


def test_a_list_of_files_that_should_be_there(make_server, source):
    """It is missing, or was never written: only the sentinel tells. A restore goes without it, and says so."""
    repository = Repository(make_server, PLAIN)
    name = WalG(repository.store, source, ".lz4", COMPRESSIONS[".lz4"]).full()
    repository.archiver.wal(source)
    repository.store.delete([keys.files_metadata(name)])
    assert {finding.object for finding in verified(repository, name).findings} == {keys.files_metadata(name)}
    assert any("no list of its files" in note for note in repository.restore(backup=name).notes)
    document = json.loads(repository.store.get(keys.sentinel(name))) | {"FilesMetadataDisabled": True}
    repository.store.put(keys.sentinel(name), json.dumps(document).encode())
    report = verified(repository, name)
    assert report.ok, report.findings
    assert any("no list of its files" in note for note in report.notes)


def test_expiry_keeps_what_a_delta_builds_on(make_server, source):
    repository, _, truth = chain_of_three(make_server, source)
    catalog = read_catalog(repository.store, PLAIN)
    now = catalog.backups[-1].finished
    policy = RetentionPolicy(backups=1, window=now - now)
    plan = plan_expiry(catalog, policy, now, UTC)
    assert (plan.removed, plan.refusal) == ((), "")
    reasons = {verdict.backup.name: verdict.reasons for verdict in plan.backups}
    full, middle, newest = truth
    assert any(newest in reason for reason in reasons[middle])
    assert any(middle in reason for reason in reasons[full])
    # Without the parent the deltas say why they cannot be restored, and nothing else is removed for them.
    orphaned = replace(catalog, backups=tuple(b for b in catalog.backups if b.name != full))
    assert orphaned.why_not_restorable(orphaned.backups[-1]) == f"it is a delta of {full}, which is not there" or (
        full in orphaned.why_not_restorable(orphaned.backups[0])
    )
    assert plan_expiry(orphaned, policy, now, UTC).refusal


def test_our_backups_and_wal_gs_in_one_prefix_with_a_delta_on_ours(make_server, source):
    """WAL-G takes its delta on top of whatever is the newest: of ours every file is in it in full."""
    repository = Repository(make_server, PLAIN)
    insert(source, 1)
    ours = repository.archiver.backup(source)
    tool = WalG(repository.store, source, ".lz4", COMPRESSIONS[".lz4"])
    insert(source, 2)
    name = tool.full()
    sentinel = json.loads(repository.store.get(keys.sentinel(name)))
    start = read_catalog(repository.store, PLAIN).backup(ours).start_lsn  # type: ignore[union-attr]
    delta = {"DeltaFrom": ours, "DeltaFullName": ours, "DeltaCount": 1, "DeltaLSN": int(start)}
    repository.store.put(keys.sentinel(name), json.dumps(sentinel | delta).encode())
    repository.archiver.wal(source)
    # The helper that makes ours leaves that list out; without it WAL-G's delta has everything all the same.
    assert {finding.object for finding in verified(repository, name).findings} == {keys.files_metadata(ours)}
    for backup in (ours, name):
        server = repository.recovered(major=source.major, backup=backup)
        assert rows(server) == [1, 2]
        server.stop("immediate")
