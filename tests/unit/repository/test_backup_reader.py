"""Sentinels of every writer become backups; hostile ones become backups with a problem, never an exception."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.backup import Backup, Tablespace
from pgbackup.core.lsn import MIB, Lsn
from pgbackup.repository.backup_reader import extras_of, read_backup
from tests.made_backup import NOON, MadeRepository

NAME = "base_000000010000000000000006"
MODIFIED = datetime(2026, 5, 1, tzinfo=UTC)
WAL_G_SENTINEL: dict[str, Any] = {
    "LSN": 100663336, "PgVersion": 150018, "FinishLSN": 100663552, "SystemIdentifier": 7574000000000000001,
    "UncompressedSize": 24245248, "CompressedSize": 3100000, "DataCatalogSize": 5,
    "Spec": {"base_prefix": "/data", "tablespaces": ["16384"], "16384": {"loc": "/mnt/ts1", "link": "pg_tblspc/16384"}},
    "UserData": {"a": 1}, "ChkpNum": None, "Version": 2, "StartTime": "2026-01-02T03:04:05.678901Z",
    "FinishTime": "2026-01-02T03:05:05.678901234+02:00", "DateFmt": "x", "Hostname": "h", "DataDir": "/data",
    "IsPermanent": False, "TarFileSets": None,
}  # fmt: skip
WAL_G_METADATA: dict[str, Any] = {
    "start_time": "2026-01-02T03:04:05.678901Z", "finish_time": "2026-01-02T03:05:05.678901Z", "date_fmt": "x",
    "hostname": "h", "data_dir": "/data", "pg_version": 150018, "start_lsn": 100663336, "finish_lsn": 100663552,
    "is_permanent": True, "system_identifier": 7574000000000000001, "uncompressed_size": 1, "compressed_size": 1,
}  # fmt: skip


def read(sentinel: Any = None, metadata: Any = None, name: str = NAME):
    text = json.dumps(WAL_G_SENTINEL if sentinel is None else sentinel).encode()
    return read_backup(name, MODIFIED, text, None if metadata is None else json.dumps(metadata).encode())


def test_one_of_ours() -> None:
    made = MadeRepository(segment_bytes=64 * MIB)
    documents = made.documents(Lsn(5 * 64 * MIB + 40), Lsn(5 * 64 * MIB + 400), wal_tail=True, corrupt_files={"x": [1]})
    found = read_backup("base_000000010000000000000005", MODIFIED, documents.sentinel(), documents.metadata())
    backup = found.backup
    assert found.segment_bytes == 64 * MIB
    assert (backup.engine, backup.label, backup.wal_tail, backup.corrupt_files) == ("pgbackup", "by hand", True, ("x",))
    assert (backup.start_lsn, backup.stop_lsn) == (documents.start_lsn, documents.finish_lsn)
    assert (backup.started, backup.finished) == (NOON - timedelta(minutes=1), NOON)
    assert backup.tablespaces == (Tablespace(16384, "/mnt/ts 1"),)
    assert (backup.raw_bytes, backup.stored_bytes, backup.modified) == (1000, 100, MODIFIED)
    assert backup.problem == ""
    assert extras_of(json.loads(documents.sentinel()))["label"] == "by hand"


def test_one_of_wal_g() -> None:
    found = read(metadata=WAL_G_METADATA)
    backup = found.backup
    assert (backup.engine, backup.timeline, backup.pg_version) == ("wal-g", 1, 150018)
    assert backup.start_lsn == Lsn.parse("0/6000028")
    assert backup.permanent, "permanence is kept in metadata.json alone"
    assert backup.finished == datetime(2026, 1, 2, 3, 5, 5, 678901, tzinfo=UTC)
    assert found.segment_bytes == 16 * MIB, "name and LSN prove the segment size"
    assert backup.problem == ""


@pytest.mark.parametrize(
    ("user_data", "label"),
    [
        ({"label": "before the upgrade"}, "before the upgrade"),
        ({"label": " two\nlines \x1b[31mred\u202e "}, " two\nlines \x1b[31mred\u202e "),
        ({"label": ["x"]}, ""),
        ({"a": 1}, ""),
        ("before the upgrade", ""),
        (None, ""),
    ],
)
def test_the_label_that_the_engine_wal_g_gave(user_data: Any, label: str) -> None:
    """WAL-G's user data may be anything, of anybody: no label is no problem."""
    backup = read(WAL_G_SENTINEL | {"UserData": user_data}).backup
    assert (backup.label, backup.problem) == (label, "")


def test_a_label_that_only_metadata_json_has() -> None:
    found = read(WAL_G_SENTINEL | {"UserData": None}, WAL_G_METADATA | {"user_data": {"label": "by hand"}})
    assert found.backup.label == "by hand"


def test_without_metadata_the_sentinel_counts() -> None:
    backup = read().backup
    assert backup.finished == datetime(2026, 1, 2, 1, 5, 5, 678901, tzinfo=UTC)
    assert not backup.permanent


def test_damaged_metadata_condemns_nothing_and_protects() -> None:
    found = read_backup(NAME, MODIFIED, json.dumps(WAL_G_SENTINEL).encode(), b"{")
    assert found.backup.problem == ""
    assert found.backup.permanent, "nobody knows, so nobody deletes"


def test_gos_decoder_does_not_care_about_case_and_null() -> None:
    lower = {name.lower(): value for name, value in WAL_G_SENTINEL.items()} | {"spec": None}
    backup = read(lower).backup
    assert (backup.start_lsn, backup.tablespaces) == (Lsn.parse("0/6000028"), ())


@pytest.mark.parametrize("name", [f"{NAME}_D_000000010000000000000002", f"{NAME}_D_000000010000000000000002_00000028"])
def test_a_delta(name: str) -> None:
    sentinel = WAL_G_SENTINEL | {"DeltaFrom": "base_000000010000000000000002", "DeltaLSN": 1, "DeltaCount": 1}
    backup = read(sentinel, name=name).backup
    assert backup.delta_of == "base_000000010000000000000002"
    assert (backup.delta_lsn, backup.problem) == (1, "")


def test_a_delta_of_before_wal_g_1() -> None:
    sentinel = WAL_G_SENTINEL | {"DeltaFrom": NAME, "DeltaFromLSN": 77}
    assert read(sentinel, name=f"{NAME}_D_000000010000000000000002").backup.delta_lsn == 77


def test_a_delta_whose_sentinel_does_not_say_of_what() -> None:
    assert "does not say of which" in read(WAL_G_SENTINEL, name=f"{NAME}_D_000000010000000000000002").backup.problem


def test_one_of_wal_e() -> None:
    sentinel = {
        "wal_segment_backup_stop": "000000010000000000000007", "wal_segment_offset_backup_stop": "00000304",
        "expanded_size_bytes": 23947809,
        "spec": {"base_prefix": "/data/", "tablespaces": ["16384"], "16384": {"loc": "/mnt/ts/", "link": "x"}},
    }  # fmt: skip
    backup = read(sentinel, name=f"{NAME}_00000040").backup
    assert backup.engine == "wal-e"
    assert (backup.start_lsn, backup.stop_lsn) == (Lsn(6 * 16 * MIB + 40), Lsn(7 * 16 * MIB + 304))
    assert (backup.started, backup.finished) == (MODIFIED, MODIFIED)
    assert backup.tablespaces == (Tablespace(16384, "/mnt/ts"),)
    assert backup.raw_bytes == 23947809
    assert (backup.problem, backup.needs) == ("", "")


def of_wal_e(segment: str | None, offset: str | None, name: str = f"{NAME}_00000040") -> Backup:
    sentinel = {"wal_segment_backup_stop": segment, "wal_segment_offset_backup_stop": offset, "spec": {}}
    return read({field: value for field, value in sentinel.items() if value is not None}, name=name).backup


@pytest.mark.parametrize("offset", ["00000000", "", None, "0000012C8x", "-0000040", "99999999", "16777216", "٠٠٠٠٠٠٤٠"])
def test_wal_e_needs_its_last_segment_whatever_the_place_in_it(offset: str | None) -> None:
    """0 is what pg_walfile_name_offset says of a segment's end, with the name of the segment that ends there."""
    backup = of_wal_e("000000010000000000000007", offset)
    assert (backup.stop_lsn, backup.problem) == (Lsn(8 * 16 * MIB), "")


@pytest.mark.parametrize("offset", ["00000040", "", None, "x"])
def test_one_that_may_be_of_wal_es_while_offline(offset: str | None) -> None:
    assert "--while-offline" in of_wal_e(NAME.removeprefix("base_"), offset).problem


def test_one_of_wal_e_within_one_segment() -> None:
    assert of_wal_e(NAME.removeprefix("base_"), "00000304").problem == ""
    assert of_wal_e(NAME.removeprefix("base_"), "00000000").problem == ""


@pytest.mark.parametrize(
    ("segment", "said"),
    [
        (None, "does not say in which segment it ended"),
        ("", "does not say in which segment it ended"),
        ("00000001000000000000000", "ended in '00000001000000000000000'"),
        ("000000010000000000000005", "ended in '000000010000000000000005'"),
        ("000000020000000000000007", "ended in '000000020000000000000007'"),
        ("00000001FFFFFFFF000000FF", "ended in '00000001FFFFFFFF000000FF'"),
    ],
)
def test_one_of_wal_e_whose_end_is_not_known(segment: str | None, said: str) -> None:
    assert said in of_wal_e(segment, "00000000").problem


@pytest.mark.parametrize("offset", ["0000004A", "99999999"])
def test_wal_e_needs_its_first_segment_whatever_the_name_says(offset: str) -> None:
    assert of_wal_e("000000010000000000000007", "00000304", f"{NAME}_{offset}").start_lsn == Lsn(6 * 16 * MIB)


@pytest.mark.parametrize("lsn", ["0/5000028", "0/7000028", "1/6000028"])
def test_a_sentinel_that_belongs_to_another_backup(lsn: str) -> None:
    moved = {"LSN": int(Lsn.parse(lsn)), "FinishLSN": int(Lsn.parse(lsn)) + 200}
    assert "not in the segment that it is named for" in read(WAL_G_SENTINEL | moved).backup.problem


STOP = WAL_G_SENTINEL["FinishLSN"]


@pytest.mark.parametrize(
    ("sentinel", "metadata", "said"),
    [
        ({}, {"finish_lsn": STOP + 8}, "its sentinel says that it ended at 0/6000100, its metadata.json at 0/6000108"),
        ({"FinishLSN": 5}, None, "it began at 0/6000028 and ended at 0/5, which cannot be"),
        ({"FinishLSN": STOP + (1 << 51)}, None, "ended at 80000/6000100, which cannot be"),
        ({"FinishLSN": (1 << 64) - 1}, {"finish_lsn": (1 << 64) - 1}, "ended at FFFFFFFF/FFFFFFFF, which cannot be"),
        ({"FinishLSN": None}, None, "do not say at which LSN it ended"),
    ],
)
def test_a_stop_that_cannot_be(sentinel: dict[str, Any], metadata: dict[str, Any] | None, said: str) -> None:
    """It counts as not known, so that nothing is ordered by it."""
    backup = read(WAL_G_SENTINEL | sentinel, None if metadata is None else WAL_G_METADATA | metadata).backup
    assert said in backup.problem
    assert (backup.start_lsn, backup.stop_lsn) == (WAL_G_SENTINEL["LSN"], 0)
    assert backup.finished.year == 2026


@pytest.mark.parametrize(
    ("sentinel", "metadata", "said"),
    [
        ({}, {"start_lsn": WAL_G_SENTINEL["LSN"] + 8}, "began at 0/6000028, its metadata.json at 0/6000030"),
        ({"LSN": 1 << 60}, None, "not in the segment that it is named for"),
        ({"LSN": 1 << 60}, {}, "began at 10000000/0, its metadata.json at 0/6000028"),
        ({"LSN": None}, None, "do not say at which LSN it began"),
    ],
)
def test_a_start_that_cannot_be(sentinel: dict[str, Any], metadata: dict[str, Any] | None, said: str) -> None:
    backup = read(WAL_G_SENTINEL | sentinel, None if metadata is None else WAL_G_METADATA | metadata).backup
    assert said in backup.problem
    assert (backup.start_lsn, backup.stop_lsn) == (0, 0)


@pytest.mark.parametrize(
    "metadata",
    [
        {"start_lsn": 16 * MIB + 40, "finish_lsn": 16 * MIB + 300},
        {"start_lsn": "0/6000028"}, {"finish_lsn": -1}, {"start_lsn": None, "finish_lsn": None},
    ],
)  # fmt: skip
def test_metadata_json_that_is_evidently_wrong_condemns_nothing(metadata: dict[str, Any]) -> None:
    """Another backup's, or damaged: the name agrees with the sentinel."""
    backup = read(metadata=WAL_G_METADATA | metadata).backup
    assert (backup.start_lsn, backup.stop_lsn, backup.problem) == (WAL_G_SENTINEL["LSN"], STOP, "")


def test_nothing_contradicts_a_sentinel_of_ours() -> None:
    documents = MadeRepository().documents(Lsn(5 << 20), Lsn(6 << 20))
    metadata = json.loads(documents.metadata()) | {"finish_lsn": 7 << 20, "start_lsn": "x"}
    name = "base_000000010000000000000005"
    backup = read_backup(name, MODIFIED, documents.sentinel(), json.dumps(metadata).encode()).backup
    assert (backup.stop_lsn, backup.problem) == (Lsn(6 << 20), "")


@pytest.mark.parametrize(
    ("sentinel", "metadata", "permanent"),
    [
        (b"{", {"is_permanent": True}, True),
        (b"{", {"is_permanent": False}, False),
        (b"{", None, False),
        (b'{"LSN": "x", "IsPermanent": true}', None, True),
        (b'{"LSN": "x", "IsPermanent": true}', {"is_permanent": False}, False),
        (b'{"LSN": "x"}', {"is_permanent": "yes"}, True),
        (json.dumps(WAL_G_SENTINEL).encode(), {"is_permanent": True, "start_time": "yesterday"}, True),
    ],
)
def test_what_cannot_be_read_stays_permanent(sentinel: bytes, metadata: dict[str, Any] | None, permanent: bool) -> None:
    backup = read_backup(NAME, MODIFIED, sentinel, None if metadata is None else json.dumps(metadata).encode()).backup
    assert backup.problem
    assert backup.permanent == permanent


def test_gos_zero_time_counts_as_missing() -> None:
    sentinel = WAL_G_SENTINEL | {"StartTime": "0001-01-01T00:00:00Z", "FinishTime": "0001-01-01T00:00:00+05:00"}
    assert read(sentinel).backup.finished == MODIFIED


@pytest.mark.parametrize(
    ("name", "lsn", "size"),
    [
        ("base_000000010000000000000006", 6 * 16 * MIB + 40, 16 * MIB),
        ("base_000000010000000000000060", 6 * 16 * MIB + 40, MIB),
        ("base_000000020000000000000FFF", 0xFFF * MIB + 40, MIB),
        ("base_000000010000000000000005", 6 * 16 * MIB, 16 * MIB),
        ("base_000000010000000000000000", 40, None),
    ],
)
def test_the_segment_size_that_wal_g_used(name: str, lsn: int, size: int | None) -> None:
    found = read(WAL_G_SENTINEL | {"LSN": lsn, "FinishLSN": lsn + 100}, name=name)
    assert found.segment_bytes == size
    assert found.backup.start_lsn == lsn
    assert found.backup.problem == ""


@pytest.mark.parametrize(
    "change",
    [
        {"LSN": "0/6000028"}, {"LSN": 40.0}, {"LSN": -1}, {"LSN": 1 << 64}, {"LSN": True}, {"FinishLSN": [1]},
        {"StartTime": "2026-01-02T03:04:05"}, {"StartTime": "2026-01-02 03:04:05Z"}, {"StartTime": 5},
        {"StartTime": "2026-13-02T03:04:05Z"}, {"FinishTime": "9999-12-31T23:59:59-12:00"}, {"Spec": []},
        {"Spec": {"tablespaces": [16384]}}, {"Spec": {"tablespaces": ["16384"]}},
        {"Spec": {"tablespaces": ["../x"], "../x": {"loc": "/a", "link": "b"}}}, {"IsPermanent": "yes"},
        {"Spec": {"tablespaces": ["9" * 5000], "9" * 5000: {"loc": "/a", "link": "b"}}},
        {"Spec": {"tablespaces": ["1"], "1": {"loc": 5, "link": "b"}}}, {"Hostname": {}}, {"PgVersion": "15"},
        {"UserData": {"pgbackup": {"segment_bytes": 17}}}, {"UserData": {"pgbackup": {"label": 5}}},
        {"UserData": {"pgbackup": {"wal_tail": "x"}}}, {"DeltaFrom": 5}, {"LSN": None}, {"FinishLSN": None},
        {"FinishLSN": 5},
    ],
)  # fmt: skip
def test_documents_that_cannot_be_trusted(change: dict[str, Any]) -> None:
    backup = read(WAL_G_SENTINEL | change).backup
    assert backup.name == NAME
    assert backup.problem


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"[" * 200_000, b'{"LSN":' + b"9" * 5000 + b"}", b"null"])
def test_bytes_that_are_no_sentinel(data: bytes) -> None:
    backup = read_backup(NAME, MODIFIED, data, None).backup
    assert (backup.timeline, backup.engine) == (1, "unknown")
    assert backup.problem


@pytest.mark.parametrize(
    "name", ["base_x", "", "base_000000010000000000000006_pgbackup", "base_00000001000000000000000a"]
)
def test_names_that_nobody_writes(name: str) -> None:
    assert "name" in read(name=name).backup.problem


texts = st.text("aZ016:-/.é", max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from([*WAL_G_SENTINEL, "DeltaFrom", "spec", "lsn"]), json_values, max_size=6),
    st.dictionaries(st.sampled_from([*WAL_G_METADATA, "user_data"]), json_values, max_size=4),
    st.sampled_from([NAME, f"{NAME}_00000040", "base_0000000100000000000FFFFF"]),
)
def test_nothing_in_the_documents_raises(sentinel: dict[str, Any], metadata: dict[str, Any], name: str) -> None:
    assert read(WAL_G_SENTINEL | sentinel, WAL_G_METADATA | metadata, name).backup.name == name
    assert read(sentinel, metadata, name).backup.name == name


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_bytes_raise(sentinel: bytes, metadata: bytes) -> None:
    assert read_backup(NAME, MODIFIED, sentinel, metadata).backup.name == NAME
