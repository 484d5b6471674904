"""`pgbackup list`: backups oldest first, why one is not restorable, ranges and gaps."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.cli import main as cli
from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog, TimeMark
from pgbackup.core.health_facts import LastRun
from pgbackup.core.known_gaps import KnownGap
from pgbackup.core.lsn import Lsn
from pgbackup.repository import keys
from pgbackup.repository.documents import ClusterDocument
from pgbackup.repository.verification_note import write_verification
from pgbackup.storage.file import FileStore

SIZE = 16 << 20
START = datetime(2026, 3, 1, 2, tzinfo=UTC)
GOOD = Backup(
    name="base_000000010000000000000002", timeline=1, start_lsn=Lsn(2 * SIZE + 40), stop_lsn=Lsn(2 * SIZE + 400),
    started=START, finished=START + timedelta(minutes=5), modified=START, system_identifier=42, pg_version=160004,
    raw_bytes=3 << 30, stored_bytes=1 << 30, engine="native", label="before the upgrade", hostname="db", permanent=True,
)  # fmt: skip
LATER = replace(
    GOOD, name="base_000000010000000000000009", start_lsn=Lsn(9 * SIZE + 40), stop_lsn=Lsn(9 * SIZE + 400),
    started=START + timedelta(days=1), finished=START + timedelta(days=1, minutes=5), permanent=False,
)  # fmt: skip
CATALOG = Catalog(
    segment_bytes=SIZE, backups=(LATER, GOOD), segments={1: [2, 3, 6]}, system_identifier=42,
    marks=(TimeMark(START + timedelta(hours=3), 1, Lsn(3 * SIZE)),),
)  # fmt: skip


@pytest.fixture
def listed(monkeypatch, capsys, tmp_path):
    def run(catalog, *arguments):
        (tmp_path / "wal_005").mkdir(exist_ok=True)
        (tmp_path / "wal_005" / "00000002.history.zst").touch()
        monkeypatch.setattr("pgbackup.logs.configure", lambda **options: None)
        monkeypatch.setattr("pgbackup.repository.catalog_reader.read_catalog", lambda store, codec: catalog)
        assert cli.run(["--repository", f"file://{tmp_path}", "--timezone", "Europe/Berlin", "list", *arguments]) == 0
        return capsys.readouterr().out

    return run


def test_the_table(listed):
    lines = listed(CATALOG).splitlines()
    assert lines[1].split() == (
        "base_000000010000000000000002 2026-03-01 03:00:00+01:00 2026-03-01 03:05:00+01:00 16 1 0/2000028 0/2000190"
        " 3.0 GiB 1.0 GiB native permanent before the upgrade yes"
    ).split()  # fmt: skip
    assert lines[2].endswith("-          before the upgrade  no: WAL segment 000000010000000000000009 is missing")
    assert lines[3:] == [
        "",
        "recoverable:",
        "  any moment from 2026-03-01 03:05:00+01:00 to 2026-03-01 06:00:00+01:00"
        " (timeline 1, 0/2000190 to 0/4000000, beginning with base_000000010000000000000002)",
        "  gap: 2 WAL segments of timeline 1 are missing, 0/4000000 to 0/6000000",
    ]


def test_a_long_label_is_cut_in_the_table_only(listed):
    novel = replace(CATALOG, backups=(replace(GOOD, label="x" * 5000),))
    assert f" {'x' * 197}...  yes" in listed(novel)
    assert json.loads(listed(novel, "--json"))["backups"][0]["label"] == "x" * 5000


def test_json(listed):
    document = json.loads(listed(CATALOG, "--json"))
    first, second = document["backups"]
    assert first == {
        "name": GOOD.name, "label": "before the upgrade", "started": "2026-03-01T02:00:00+00:00",
        "finished": "2026-03-01T02:05:00+00:00", "timeline": 1, "start_lsn": "0/2000028", "stop_lsn": "0/2000190",
        "raw_bytes": 3 << 30, "stored_bytes": 1 << 30, "pg_version": 160004, "engine": "native", "host": "db",
        "permanent": True, "wal_tail": False, "restorable": True, "problem": "", "corrupt_files": [], "tablespaces": [],
        "found_damaged": None,
    }  # fmt: skip
    assert (second["restorable"], second["problem"]) == (False, "WAL segment 000000010000000000000009 is missing")
    assert document["system_identifier"] == 42
    assert document["recoverable"] == [
        {
            "timeline": 1, "backup": GOOD.name, "start": "0/2000190", "end": "0/4000000",
            "start_time": "2026-03-01T02:05:00+00:00", "end_time": "2026-03-01T05:00:00+00:00",
        }
    ]  # fmt: skip
    assert document["gaps"] == [{"timeline": 1, "start": "0/4000000", "end": "0/6000000"}]


def test_what_a_verification_found_damaged_is_said_beside_it(listed, tmp_path):
    """It may be mended since, so it counts as restorable; that it was read and found damaged must not be hidden."""
    found = LastRun(START, ok=True, damaged={GOOD.name: START + timedelta(hours=9)})
    write_verification(FileStore(tmp_path), found)
    yes = "yes, but found damaged (or its WAL) when it was last verified"
    assert listed(CATALOG).splitlines()[1].endswith(f"{yes}, 2026-03-01 12:00:00+01:00")
    first, second = json.loads(listed(CATALOG, "--json"))["backups"]
    assert (first["restorable"], second["found_damaged"]) == (True, None)
    assert first["found_damaged"] == {"backup": GOOD.name, "moment": "2026-03-01T11:00:00+00:00"}
    delta = replace(LATER, delta_of=GOOD.name, delta_lsn=GOOD.start_lsn)
    with_delta = replace(CATALOG, backups=(GOOD, delta), segments={1: [2, 3, 9]})
    assert f"yes, but {GOOD.name}, which it builds on, was found damaged" in listed(with_delta).splitlines()[2]
    (tmp_path / keys.VERIFICATION).write_text(json.dumps({
        "format": 1, "finished": START.isoformat(), "ok": True, "damaged": [GOOD.name],
    }))  # fmt: skip
    assert listed(CATALOG).splitlines()[1].endswith(yes), "when is not known of what an earlier version recorded"


def test_what_nobody_knows(listed):
    """WAL-E does not say how much it has stored; a sentinel that cannot be read says nothing."""
    lacks = replace(GOOD, stored_bytes=0, start_lsn=Lsn(0), stop_lsn=Lsn(0), pg_version=0, problem="damaged")
    unknown = replace(CATALOG, backups=(lacks,))
    assert "  3.0 GiB       -  native" in listed(unknown)
    (document,) = json.loads(listed(unknown, "--json"))["backups"]
    assert {document[name] for name in ("start_lsn", "stop_lsn", "pg_version", "stored_bytes")} == {None}


def test_an_empty_repository(listed):
    assert listed(Catalog(segment_bytes=SIZE)) == "no backups\n\nnothing can be recovered\n"
    assert json.loads(listed(Catalog(segment_bytes=SIZE), "--json"))["backups"] == []


def test_what_expiry_leaves_behind_a_permanent_backup_is_said_to_be_that(listed):
    last = listed(replace(CATALOG, segments={1: [2, 6]})).splitlines()[-1]
    assert last == (
        "  gap: 3 WAL segments of timeline 1 are missing, 0/3000000 to 0/6000000"
        " (expiry keeps none behind a permanent backup)"
    )


def test_a_hole_is_called_lost_only_where_the_ledger_knows_all_of_it(listed):
    gap = KnownGap(1, Lsn(4 * SIZE), Lsn(6 * SIZE), START, "the server had removed it")
    assert "0/4000000 to 0/6000000 (lost: the server had removed it" in listed(replace(CATALOG, known_gaps=(gap,)))
    part = replace(gap, end=Lsn(5 * SIZE))
    last = listed(replace(CATALOG, known_gaps=(part,))).splitlines()[-1]
    assert last.endswith("0/4000000 to 0/6000000 (some of it is known as lost: see `pgbackup gaps`)")
    of_another_branch = replace(gap, timeline=2)
    assert listed(replace(CATALOG, known_gaps=(of_another_branch,))).splitlines()[-1].endswith("to 0/6000000")


def test_a_range_without_a_known_end(listed):
    assert "to the end of its WAL (" in listed(replace(CATALOG, marks=()))


@pytest.mark.parametrize("command", [["list"], ["gaps"], ["gaps", "acknowledge", "--all"]], ids=" ".join)
@pytest.mark.parametrize("place", ["absent", "."])
def test_a_place_without_a_repository(place, command, monkeypatch, capsys, tmp_path):
    """A mistyped path must not look like a repository that is merely empty, or without gaps."""
    monkeypatch.setattr("pgbackup.logs.configure", lambda **options: None)
    assert cli.run(["--repository", f"file://{tmp_path / place}", *command, "--json"]) == 3
    shown = capsys.readouterr()
    assert f"there is no repository at file://{tmp_path / place}" in shown.err
    assert json.loads(shown.out)["error"]["exit_code"] == 3


def test_a_claimed_repository_without_backups(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("pgbackup.logs.configure", lambda **options: None)
    cluster = tmp_path / "pgbackup_005" / "cluster.json"
    cluster.parent.mkdir()
    cluster.write_bytes(ClusterDocument(42, SIZE, 180001).encode())
    assert cli.run(["--repository", f"file://{tmp_path}", "list"]) == 0
    assert capsys.readouterr().out == "no backups\n\nnothing can be recovered\n"
