"""Verification finds every kind of damage and names the object; what is whole is green."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest

from pgbackup.cli.output import plain
from pgbackup.core.lsn import MIB, Lsn, SegmentName
from pgbackup.engines.base import SilentProgress
from pgbackup.engines.verify.report import MAX_FINDINGS, VerifyReport
from pgbackup.engines.verify.verify import WalScope, choose_backup, verify_backup
from pgbackup.errors import CheckFailed, StoreUnavailable
from pgbackup.repository import codec_lzop, keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec, Compression
from pgbackup.repository.documents import files_metadata
from tests.made_backup import FILES, MadeRepository, make_control, make_manifest, make_tar
from tests.made_wal import SYSTEM, MadeWal

START, STOP = Lsn(3 * MIB + 40), Lsn(4 * MIB + 400)
SECRET = Codec(Compression("lz4"), bytes(range(32)))


def make(codec: Codec | None = None) -> MadeRepository:
    """A backup, segments 3 to 5, and segment 6 in pieces."""
    made = MadeRepository(codec) if codec else MadeRepository()
    made.claim()
    made.backup(START, STOP)
    wal = MadeWal(3)
    wal.fill_to(3.5)
    made.wal(wal)
    return made


def verify(made: MadeRepository, *, wal: WalScope = "all", name: str | None = None) -> VerifyReport:
    catalog = read_catalog(made.store, made.codec)
    backup = choose_backup(catalog, name)
    return verify_backup(made.store, made.codec, catalog, backup, progress=SilentProgress(), wal=wal)


@pytest.fixture
def made() -> MadeRepository:
    return make()


NAME = "base_000000010000000000000003"
PART_1, PART_2 = keys.part(NAME, 1, "zst"), keys.part(NAME, 2, "zst")
CONTROL = keys.control_tar(NAME, "zst")
MANIFEST = keys.manifest(NAME, "zst")
SEGMENT = keys.wal("000000010000000000000004", "zst")
OPEN = SegmentName(1, 6, MIB)


def pieces(made: MadeRepository) -> list[str]:
    return [info.key for info in made.store.list(keys.pieces_folder(str(OPEN)))]


# -- what is whole ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [None, SECRET, Codec(Compression("none"))], ids=["zstd", "encrypted", "none"])
def test_a_whole_repository_is_green(codec: Codec | None) -> None:
    made = make(codec)
    report = verify(made)
    assert report.findings == ()
    assert report.ok
    assert (report.files, report.segments) == (len(FILES), 3)
    assert report.raw_bytes > 3 * MIB + sum(map(len, FILES.values()))
    [row] = report.wal
    tail = max(keys.parse_piece(key).end for key in pieces(made))  # type: ignore[union-attr]
    assert (row.timeline, row.start, row.end) == (1, Lsn(3 * MIB), Lsn(6 * MIB + tail))
    document = json.loads(json.dumps(plain(report)))
    assert document["ok"] is True
    assert document["wal"][0]["start"] == "0/300000"


@pytest.mark.parametrize("algorithm", ["SHA256", "NONE"])
def test_other_checksums(algorithm: str) -> None:
    made = MadeRepository()
    made.backup(START, STOP, algorithm=algorithm)
    assert verify(made, wal="none").ok


def test_only_the_needed_wal(made: MadeRepository) -> None:
    made.store.delete([made.segment_key(1, 5)])
    report = verify(made, wal="needed")
    assert report.ok
    assert (report.segments, report.wal[0].end) == (2, Lsn(5 * MIB))
    assert verify(made, wal="none").wal == ()


def test_many_files_go_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    files = FILES | {f"base/5/{number}": str(number).encode() for number in range(300)}
    made = MadeRepository()
    made.backup(START, STOP, files=files)
    monkeypatch.setattr("pgbackup.repository.checksum_table.ChecksumTable.__init__.__kwdefaults__", {"spill_files": 20})
    assert verify(made, wal="none").ok


def test_left_overs_of_a_restore_are_in_the_manifest_but_never_stored() -> None:
    made = MadeRepository()
    name = made.backup(START, STOP)
    with_more = FILES | {"pgbackup_wal/000000010000000000000001": b"x", "backup_manifest.old": b"x"}
    made.put(keys.manifest(name, "zst"), make_manifest(with_more, START, STOP, system_identifier=SYSTEM))
    assert verify(made, wal="none").ok


# -- damage -----------------------------------------------------------------------------------------------------------


def replace(made: MadeRepository, key: str, change: Callable[[bytes], bytes]) -> None:
    made.store.put(key, change(made.store.get(key)))


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


def objects_of(report: VerifyReport) -> set[str]:
    return {finding.object for finding in report.findings}


@pytest.mark.parametrize("key", [PART_1, PART_2, CONTROL, MANIFEST, SEGMENT, keys.files_metadata(NAME)])
@pytest.mark.parametrize("change", [flip, lambda d: d[:-1], lambda d: d + b"x", lambda d: d[:0] or b"x"])
def test_a_damaged_object_is_named(made: MadeRepository, key: str, change: Callable[[bytes], bytes]) -> None:
    if key == keys.files_metadata(NAME) and change is flip:
        change = lambda data: data.replace(b"base/5/1259", b"base/5/1258")  # noqa: E731
    replace(made, key, change)
    report = verify(made)
    assert not report.ok
    assert objects_of(report) == {key}
    assert {finding.kind for finding in report.findings} == {"damaged"}


@pytest.mark.parametrize(
    "key", [PART_1, CONTROL, MANIFEST, SEGMENT, keys.metadata(NAME), keys.files_metadata(NAME), made_key := ""]
)
def test_a_missing_object_is_named(made: MadeRepository, key: str) -> None:
    key = key or made.segment_key(1, 3)
    made.store.delete([key])
    report = verify(made)
    assert {f.object for f in report.findings if f.kind == "missing"} == {key}
    assert objects_of(report) == {key}


def test_a_missing_last_part_shows_by_its_files(made: MadeRepository) -> None:
    made.store.delete([PART_2])
    report = verify(made, wal="none")
    missing = [path for path in list(FILES)[1::2] if path != "global/pg_control"]
    assert report.findings_total >= len(missing)
    assert any(
        "base/5/PG_VERSION" in finding.problem or "base/5/1259" in finding.problem for finding in report.findings
    )


def test_swapped_parts_segments_and_manifests_are_seen(made: MadeRepository) -> None:
    other = made.backup(Lsn(9 * MIB + 40), Lsn(9 * MIB + 80), minutes=-60, files=FILES | {"base/5/1259": b"other"})
    made.store.put(SEGMENT, made.store.get(made.segment_key(1, 5)))
    made.store.put(MANIFEST, made.store.get(keys.manifest(other, "zst")))
    report = verify(made)
    assert objects_of(report) == {SEGMENT, MANIFEST}
    made = make()
    made.store.put(PART_1, made.store.get(PART_2))
    problems = [finding.problem for finding in verify(made, wal="none").findings]
    assert any("does not list, or another object brought" in problem for problem in problems)
    assert any("is in no object" in problem for problem in problems)


def test_a_file_with_other_content_is_named(made: MadeRepository) -> None:
    files = {path: content for path, content in FILES.items() if path != "global/pg_control"}
    chosen = dict(list(files.items())[0::2])
    first = next(path for path in chosen if len(chosen[path]) > 100)
    made.put(PART_1, make_tar(chosen | {first: chosen[first][:-1] + b"!"}))
    [finding] = verify(made, wal="none").findings
    assert finding.object == PART_1
    assert repr(first) in finding.problem
    made.put(PART_1, make_tar(chosen | {first: chosen[first][:-1]}))
    [finding] = verify(made, wal="none").findings
    assert "bytes instead of" in finding.problem


def test_strangers_are_named(made: MadeRepository) -> None:
    strangers = [keys.tar_folder(NAME) + "part_x.txt", keys.backup_folder(NAME) + "notes.txt"]
    for key in strangers:
        made.store.put(key, b"x")
    made.put(keys.part(NAME, 3, "zst"), make_tar({"global/pg_control": FILES["global/pg_control"]}))
    report = verify(made, wal="none")
    assert objects_of(report) == {*strangers, keys.part(NAME, 3, "zst")} | ({CONTROL} & objects_of(report))
    assert {finding.kind for finding in report.findings} == {"unexpected"}


def test_an_object_in_a_format_that_is_not_read(made: MadeRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_lzop, "lzallright", None)
    made.store.put(keys.part(NAME, 3, "lzo"), b"lzop")
    [finding] = verify(made, wal="none").findings
    assert (finding.kind, finding.object) == ("unreadable", keys.part(NAME, 3, "lzo"))


def test_another_key_makes_everything_unreadable(made: MadeRepository) -> None:
    catalog = read_catalog(made.store, made.codec)
    codec = Codec(Compression("zstd", 1), bytes(32))
    report = verify_backup(
        made.store, codec, catalog, choose_backup(catalog, None), progress=SilentProgress(), wal="all"
    )
    assert {PART_1, CONTROL, MANIFEST, SEGMENT} <= objects_of(report)
    assert all("key" in f.problem for f in report.findings if f.object in (PART_1, SEGMENT))
    assert report.unchecked_files == 0


def test_damaged_pages_that_the_server_reported(made: MadeRepository) -> None:
    documents = made.documents(START, STOP, corrupt_files={"base/5/1259": [0]})
    made.store.put(keys.sentinel(NAME), documents.sentinel())
    made.store.put(keys.metadata(NAME), documents.metadata())
    [finding] = verify(made, wal="none").findings
    assert "base/5/1259" in finding.problem


def test_metadata_that_says_other_than_the_sentinel(made: MadeRepository) -> None:
    other = json.loads(made.store.get(keys.metadata(NAME))) | {"finish_lsn": STOP + 8}
    made.store.put(keys.metadata(NAME), json.dumps(other).encode())
    [finding] = verify(made, wal="none").findings
    assert finding.object == keys.metadata(NAME)
    assert "finish_lsn" in finding.problem


def test_metadata_that_wal_g_has_marked(made: MadeRepository) -> None:
    """It decodes the document and writes it anew, as Go writes times, numbers and text."""
    seal = made.documents(START, STOP, label="<b> & ü")
    seal = dataclasses.replace(seal, started=seal.started.replace(microsecond=120_000))
    made.store.put(keys.sentinel(NAME), seal.sentinel())
    document = json.loads(seal.metadata()) | {"is_permanent": True}
    assert document["start_time"].endswith(".120000Z")
    document["start_time"] = document["start_time"].replace(".120000Z", ".12Z")
    text = json.dumps(document, sort_keys=True, ensure_ascii=False).replace("<", "\\u003c").replace("&", "\\u0026")
    made.store.put(keys.metadata(NAME), text.encode())
    assert verify(made, wal="none").ok


def test_a_sentinel_that_is_not_as_it_was_written(made: MadeRepository) -> None:
    replace(made, keys.sentinel(NAME), lambda data: data.replace(b'"Hostname":"', b'"Hostname":"x'))
    [problem] = [f.problem for f in verify(made, wal="none").findings if f.object == keys.sentinel(NAME)]
    assert "checksum" in problem


def test_damaged_part_leaves_its_files_unchecked(made: MadeRepository) -> None:
    replace(made, PART_1, lambda data: data[:30])
    report = verify(made, wal="none")
    assert objects_of(report) == {PART_1}
    assert report.unchecked_files == 4


def test_thousands_of_findings_are_counted_not_kept() -> None:
    made = MadeRepository()
    name = made.backup(START, STOP, parts=1)
    made.put(keys.part(name, 1, "zst"), make_tar({f"base/{number}": b"" for number in range(MAX_FINDINGS + 200)}))
    report = verify(made, wal="none")
    assert len(report.findings) == MAX_FINDINGS
    assert report.findings_total > MAX_FINDINGS


def test_a_store_that_does_not_answer_is_no_damage(made: MadeRepository) -> None:
    catalog = read_catalog(made.store, made.codec)
    made.store.fail_next("read", StoreUnavailable("no"), times=3)
    with pytest.raises(StoreUnavailable):
        verify_backup(
            made.store, made.codec, catalog, choose_backup(catalog, None), progress=SilentProgress(), wal="all"
        )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff" + FILES["global/pg_control"][1:], "checksum"),
        (FILES["global/pg_control"][:8000], "8000 bytes"),
        (make_control(SYSTEM + 1), "cluster"),
    ],
    ids=["torn", "short", "of another cluster"],
)
def test_a_control_file_that_no_server_starts_with(content: bytes, problem: str) -> None:
    """Sent like that, it fits the manifest; a restore refuses it."""
    made = MadeRepository()
    made.claim()
    made.backup(START, STOP, files=FILES | {"global/pg_control": content})
    report = verify(made, wal="none")
    assert [finding.object for finding in report.findings] == [CONTROL]
    assert problem in report.findings[0].problem


def test_the_newest_backup_is_verified_though_its_documents_cannot_be_read(made: MadeRepository) -> None:
    newest = made.backup(Lsn(5 * MIB + 40), Lsn(5 * MIB + 400), minutes=10)
    made.store.put(keys.sentinel(newest), b"{")
    report = verify(made)
    assert report.backup == newest
    assert not report.ok


def test_a_backup_of_another_tool() -> None:
    """WAL-G's: no manifest, pg_control in its part as well, any compression."""
    made = MadeRepository(Codec(Compression("lz4")))
    name = made.backup(START, STOP)
    document = json.loads(made.store.get(keys.sentinel(name)))
    del document["UserData"]
    made.store.put(keys.sentinel(name), json.dumps(document).encode())
    metadata = json.loads(made.store.get(keys.metadata(name)))
    del metadata["user_data"]
    made.store.put(keys.metadata(name), json.dumps(metadata).encode())
    made.store.delete([keys.manifest(name, "lz4")])
    made.put(keys.part(name, 5, "lz4"), make_tar({"/global/pg_control": b"x"}))
    report = verify(made, wal="none")
    assert report.findings == ()
    assert "no manifest" in report.notes[0]
    made.store.delete([keys.control_tar(name, "lz4")])
    assert objects_of(verify(made, wal="none")) == {keys.control_tar(name, "lz4")}


def of_another_tool(made: MadeRepository, **changes: object) -> None:
    """Make the backup one of WAL-G's, with these fields of the sentinel."""
    for key in (keys.sentinel(NAME), keys.metadata(NAME)):
        document = {name: value for name, value in json.loads(made.store.get(key)).items() if "ser" not in name.lower()}
        if key == keys.sentinel(NAME):
            document |= changes
        made.store.put(key, json.dumps(document).encode())
    made.store.delete([MANIFEST])


def test_metadata_of_another_backup_of_another_tool(made: MadeRepository) -> None:
    """WAL-G trusts it with the times, and so must everybody."""
    of_another_tool(made)
    assert verify(made, wal="none").ok
    for field in ("start_lsn", "system_identifier"):
        whole = made.store.get(keys.metadata(NAME))
        made.store.put(keys.metadata(NAME), json.dumps(json.loads(whole) | {field: 12345}).encode())
        [finding] = verify(made, wal="none").findings
        assert finding.object == keys.metadata(NAME)
        assert "another backup's" in finding.problem
        made.store.put(keys.metadata(NAME), whole)


@pytest.mark.parametrize("scope", ["none", "needed", "all"])
def test_documents_of_another_tool_that_contradict_each_other(made: MadeRepository, scope: WalScope) -> None:
    """Nobody knows how much WAL the backup needs, so it is not whole, however much there is."""
    of_another_tool(made)
    metadata = json.loads(made.store.get(keys.metadata(NAME)))
    made.store.put(keys.metadata(NAME), json.dumps(metadata | {"finish_lsn": int(STOP) + 8}).encode())
    [finding] = verify(made, wal=scope).findings
    assert (finding.kind, finding.object) == ("damaged", keys.sentinel(NAME))
    assert f"its sentinel says that it ended at {STOP}, its metadata.json at {Lsn(STOP + 8)}" in finding.problem


def test_files_of_a_tablespace_that_the_documents_do_not_know(made: MadeRepository) -> None:
    """A restore refuses them: nobody knows where they belong."""
    of_another_tool(made, Spec=None)
    [finding] = verify(made, wal="none").findings
    assert (finding.object, finding.kind) == (PART_2, "unexpected")
    assert "tablespace '16384'" in finding.problem


def test_which_backup() -> None:
    made = make()
    newest = made.backup(Lsn(5 * MIB + 40), Lsn(5 * MIB + 400), minutes=10)
    catalog = read_catalog(made.store, made.codec)
    assert choose_backup(catalog, None).name == newest
    assert choose_backup(catalog, NAME).name == NAME
    with pytest.raises(CheckFailed, match="no backup base_x"):
        choose_backup(catalog, "base_x")
    with pytest.raises(CheckFailed, match="holds no backup"):
        choose_backup(read_catalog(MadeRepository().store, made.codec), None)


def test_the_file_list_must_name_every_file(made: MadeRepository) -> None:
    made.store.put(keys.files_metadata(NAME), b"".join(files_metadata([("backup_label", 0.0)], {})))
    [finding] = verify(made, wal="none").findings
    assert finding.problem == f"it lists 1 file, the manifest {len(FILES)}"
