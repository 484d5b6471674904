"""The documents of our backups, held against the rules by which WAL-G reads them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.backup import Tablespace
from pgbackup.core.lsn import Lsn
from pgbackup.errors import CorruptObject
from pgbackup.repository.backup_reader import read_backup
from pgbackup.repository.documents import (
    BackupDocuments,
    BackupExtras,
    ClusterDocument,
    files_metadata,
    format_time,
    iter_files_metadata,
    tablespace_spec,
)
from pgbackup.repository.json_object import JsonObject
from pgbackup.repository.metadata_check import metadata_problem

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
STARTED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
DOCUMENTS = BackupDocuments(
    timeline=1,
    start_lsn=Lsn.parse("0/6000028"),
    finish_lsn=Lsn.parse("0/6000100"),
    pg_version=150018,
    system_identifier=(1 << 64) - 5,
    started=STARTED,
    finished=STARTED.astimezone(timezone(timedelta(hours=5))) + timedelta(minutes=1),
    hostname="sidecar-0",
    data_directory="/var/lib/postgresql/15/main/",
    raw_bytes=24245248,
    stored_bytes=3100000,
    permanent=False,
    tablespaces=(Tablespace(16384, "/mnt/ts1/"), Tablespace(20000, "/mnt/größe 2")),
    extras=BackupExtras(version="0.1.0", label="ä", corrupt_files={"base/5/1": [3]}, manifest="backup_manifest.zst"),
)
SENTINEL_TYPES: dict[str, type] = {
    "LSN": int, "PgVersion": int, "FinishLSN": int, "SystemIdentifier": int, "UncompressedSize": int,
    "CompressedSize": int, "Spec": dict, "UserData": dict, "Version": int, "StartTime": str, "FinishTime": str,
    "DateFmt": str, "Hostname": str, "DataDir": str, "IsPermanent": bool,
}  # fmt: skip
METADATA_TYPES: dict[str, type] = {
    "start_time": str, "finish_time": str, "date_fmt": str, "hostname": str, "data_dir": str, "pg_version": int,
    "start_lsn": int, "finish_lsn": int, "is_permanent": bool, "system_identifier": int, "uncompressed_size": int,
    "compressed_size": int, "user_data": dict,
}  # fmt: skip


def assert_types(document: dict[str, Any], types: dict[str, type]) -> None:
    """Go fails the whole document for one wrong type; 40.0 is no integer to it."""
    assert {name: type(value) for name, value in document.items()} == types


def test_the_sentinel() -> None:
    text = DOCUMENTS.sentinel()
    document = json.loads(text)
    assert_types(document, SENTINEL_TYPES)
    assert (document["LSN"], document["FinishLSN"]) == (100663336, 100663552)
    assert document["SystemIdentifier"] == 18446744073709551611
    assert (document["StartTime"], document["FinishTime"]) == (
        "2026-01-02T03:04:05.678901Z", "2026-01-02T03:05:05.678901Z",
    )  # fmt: skip
    assert document["DateFmt"] == "%Y-%m-%dT%H:%M:%S.%fZ"
    assert document["Version"] == 2
    assert b'": ' not in text
    assert not text.endswith(b"\n")
    assert not {name for name in document if name.startswith("Delta")}, "DeltaFrom without its sisters panics"


def test_metadata_says_the_same() -> None:
    document, sentinel = json.loads(DOCUMENTS.metadata()), json.loads(DOCUMENTS.sentinel())
    assert_types(document, METADATA_TYPES)
    assert document["start_lsn"] == sentinel["LSN"]
    assert document["finish_lsn"] == sentinel["FinishLSN"]
    assert document["user_data"]["pgbackup"] | {"sha256": ANY} == sentinel["UserData"]["pgbackup"]
    assert metadata_problem(made("sentinel"), made("metadata")) == ""
    assert RFC_3339.fullmatch(document["start_time"])


def test_the_spec_of_tablespaces() -> None:
    """Names are text, each with an entry; base_prefix without a slash at the end; loc and link are text."""
    assert json.loads(DOCUMENTS.sentinel())["Spec"] == {
        "base_prefix": "/var/lib/postgresql/15/main",
        "tablespaces": ["16384", "20000"],
        "16384": {"loc": "/mnt/ts1", "link": "pg_tblspc/16384"},
        "20000": {"loc": "/mnt/größe 2", "link": "pg_tblspc/20000"},
    }
    assert tablespace_spec("/data", ()) == {"base_prefix": "/data", "tablespaces": []}


def test_what_only_we_know_is_in_the_user_data() -> None:
    ours = json.loads(DOCUMENTS.sentinel())["UserData"]["pgbackup"]
    assert ours["format"] == 2
    assert ours["label"] == "ä"
    assert ours["corrupt_files"] == {"base/5/1": [3]}


def made(which: str) -> JsonObject:
    return JsonObject.parse(which, getattr(DOCUMENTS, which)())


class TestFlippedBits:
    """What still is JSON, and still has the right types, must not pass for what was written."""

    NAME = "base_000000010000000000000006"

    def flipped(self, data: bytes) -> Iterator[bytes]:
        for at, byte in enumerate(data):
            for bit in range(8):
                yield data[:at] + bytes([byte ^ 1 << bit]) + data[at + 1 :]

    def test_of_the_sentinel(self) -> None:
        metadata = DOCUMENTS.metadata()
        assert read_backup(self.NAME, STARTED, DOCUMENTS.sentinel(), metadata).backup.problem == ""
        for data in self.flipped(DOCUMENTS.sentinel()):
            assert read_backup(self.NAME, STARTED, data, metadata).backup.problem, data

    def test_of_metadata(self) -> None:
        """A letter in upper case is the same name to every reader of these documents."""
        sentinel, whole = made("sentinel"), DOCUMENTS.metadata()
        for data in self.flipped(whole):
            with suppress(CorruptObject):
                assert metadata_problem(sentinel, JsonObject.parse("metadata", data)) or data.lower() == whole.lower()

    def test_permanence_may_change(self) -> None:
        marked = replace(DOCUMENTS, permanent=True).metadata()
        assert metadata_problem(made("sentinel"), JsonObject.parse("metadata", marked)) == ""

    def test_text_of_others_that_looks_like_the_checksum(self) -> None:
        settings = {"sha256": "", "a": '"sha256":""'}
        documents = replace(DOCUMENTS, extras=BackupExtras("0.1.0", label='"sha256":""', settings=settings))
        assert read_backup(self.NAME, STARTED, documents.sentinel(), None).backup.problem == ""


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-11)), timezone(timedelta(minutes=345))])
def test_times_are_utc_with_microseconds(zone: timezone) -> None:
    assert format_time(STARTED.astimezone(zone)) == "2026-01-02T03:04:05.678901Z"
    assert format_time(STARTED.replace(microsecond=0)) == "2026-01-02T03:04:05.000000Z"
    assert format_time(datetime(1, 1, 1, tzinfo=UTC)) == "0001-01-01T00:00:00.000000Z"


# -- files_metadata.json ----------------------------------------------------------------------------------------------


def listed(files: list[tuple[str, float]], corrupt: dict[str, list[int]] | None = None) -> bytes:
    return b"".join(files_metadata(files, corrupt or {}))


def names_in(data: bytes) -> list[str]:
    return list(iter_files_metadata("the/key", io.BytesIO(data)))


def test_a_list_of_files() -> None:
    data = listed([("base/5/1259", 1767323045.9), ("global/pg_control", 0)], {"base/5/1259": list(range(50))})
    assert json.loads(data) == {
        "Files": {
            "base/5/1259": {
                "IsIncremented": False, "IsSkipped": False, "MTime": "2026-01-02T03:04:05.900000Z",
                "CorruptBlocks": {"CorruptBlocksCount": 50, "SomeCorruptBlocks": list(range(10))}, "UpdatesCount": 0,
            },
            "global/pg_control": {
                "IsIncremented": False, "IsSkipped": False, "MTime": "1970-01-01T00:00:00.000000Z", "UpdatesCount": 0,
            },
        }
    }  # fmt: skip


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, max_size=30))
def test_every_name_comes_back(names: list[str]) -> None:
    data = listed([(name, 1.0) for name in names])
    assert list(json.loads(data)["Files"]) == names
    assert names_in(data) == names


def test_names_and_times_that_json_or_calendars_do_not_know() -> None:
    data = listed([("base/\udcff", 1e30), ('quote " and \n', -1e30)])
    assert list(json.loads(data)["Files"]) == ["base/�", 'quote " and \n']


def test_a_million_files_in_little_memory() -> None:
    chunks = files_metadata(((f"base/5/{number}", 0.0) for number in range(20_000)), {})
    assert max(len(chunk) for chunk in chunks) < 100_000


def test_a_damaged_list_is_seen() -> None:
    data = listed([("a", 0), ("b", 0)])
    for length in range(len(data) - 1):
        with pytest.raises(CorruptObject, match="the/key"):
            names_in(data[:length])
    for other in (b"", b"{}", data + b"\n{", data.replace(b'{"Is', b'{"x":{}},"y":{"Is', 1), b"\xff" + data):
        with pytest.raises(CorruptObject):
            names_in(other)


# -- cluster.json -----------------------------------------------------------------------------------------------------


def test_cluster_document() -> None:
    cluster = ClusterDocument((1 << 64) - 1, 1 << 26, 180001)
    assert ClusterDocument.decode("k", cluster.encode()) == cluster


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", '{"system_identifier":1}', '{"system_identifier":"1","segment_bytes":16777216}',
        '{"system_identifier":-1,"segment_bytes":16777216}', '{"system_identifier":1,"segment_bytes":5}',
        '{"system_identifier":1.0,"segment_bytes":16777216}', '{"system_identifier":true,"segment_bytes":16777216}',
        '{"system_identifier":99999999999999999999999,"segment_bytes":16777216}', "[" * 100_000,
        '{"system_identifier":NaN,"segment_bytes":16777216}', "\xff",
    ],
)  # fmt: skip
def test_a_cluster_document_that_is_none(text: str) -> None:
    with pytest.raises(CorruptObject, match=r"cluster\.json"):
        ClusterDocument.decode("pgbackup_005/cluster.json", text.encode("latin-1"))
