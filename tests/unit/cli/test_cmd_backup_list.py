"""``pgbackup backup-list`` against what WAL-G 3 prints for the same backups."""

from __future__ import annotations

import json
import tracemalloc
from datetime import timedelta

import pytest
from click.testing import CliRunner, Result

from pgbackup.cli.cmd_backup_list import command
from pgbackup.core.lsn import MIB, Lsn
from pgbackup.repository import keys
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.memory import MemoryStore
from pgbackup.storage.readonly import ReadOnlyStore
from tests.made_backup import NOON, MadeRepository

FIRST, SECOND = "base_00000001000000000000000A", "base_000000010000000000000014"
WAL_E = "base_00000001000000000000001E_00000040"


class FakeApp:
    def __init__(self) -> None:
        self.now = NOON
        self.made = MadeRepository(store=MemoryStore(now=self.tick))

    def tick(self):
        return self.now

    def open_readonly_store(self, *, ask_server: bool = False) -> ObjectStore:
        return ReadOnlyStore(self.made.store)

    def backup(self, start: int, *, sealed_after: int = 0) -> None:
        self.now = NOON + timedelta(hours=sealed_after)
        self.made.backup(Lsn(start * MIB + 40), Lsn((start + 1) * MIB + 400), minutes=start)


@pytest.fixture
def app() -> FakeApp:
    app = FakeApp()
    app.backup(20, sealed_after=1)
    app.backup(10, sealed_after=2)
    return app


def run(app: FakeApp, *arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments, obj=app)
    assert result.exit_code == 0, result.output
    return result


def test_columns_and_order_are_those_of_wal_g(app: FakeApp) -> None:
    """By the seal's age in the store, padded with spaces, the last column without."""
    assert run(app).stdout.splitlines() == [
        "backup_name                   modified             wal_file_name            storage_name",
        f"{SECOND} 2026-03-01T13:00:00Z 000000010000000000000014 default",
        f"{FIRST} 2026-03-01T14:00:00Z 00000001000000000000000A default",
    ]


def test_details(app: FakeApp) -> None:
    header, *rows = (line.split() for line in run(app, "--detail").stdout.splitlines())
    assert header[4:] == "start_time finish_time hostname data_dir pg_version start_lsn finish_lsn is_permanent".split()
    assert [row[0] for row in rows] == [FIRST, SECOND], "by start"
    assert (
        rows[0][4:]
        == (
            "2026-03-01T12:09:00Z 2026-03-01T12:10:00Z db-1 /var/lib/postgresql/18/main 180001 0/A00028 0/B00190 false"
        ).split()
    )


def test_json(app: FakeApp) -> None:
    text = run(app, "--json").stdout
    assert text.count("\n") == 1
    assert json.loads(text) == [
        {
            "backup_name": name,
            "time": f"2026-03-01T{hour}:00:00Z",
            "wal_file_name": name.removeprefix("base_"),
            "storage_name": "default",
        }
        for name, hour in ((SECOND, 13), (FIRST, 14))
    ]
    detailed = json.loads(run(app, "--json", "--detail").stdout)
    assert detailed[0].keys() >= {
        "backup_name", "time", "wal_file_name", "storage_name", "start_time", "finish_time", "date_fmt", "hostname",
        "data_dir", "pg_version", "start_lsn", "finish_lsn", "is_permanent", "system_identifier", "uncompressed_size",
        "compressed_size", "user_data",
    }  # fmt: skip
    assert (detailed[0]["start_lsn"], detailed[0]["is_permanent"]) == (10 * MIB + 40, False)
    assert run(app, "--json", "--pretty").stdout.startswith('[\n    {\n        "backup_name": ')


def test_pretty(app: FakeApp) -> None:
    lines = run(app, "--pretty").stdout.splitlines()
    assert lines[1].startswith("| # | BACKUP NAME")
    assert lines[3].startswith(f"| 0 | {SECOND} | Sunday, 01-Mar-26 13:00:00 UTC | ")
    assert len({len(line) for line in lines}) == 1


def test_nothing(app: FakeApp) -> None:
    empty = FakeApp()
    assert run(empty, "--json").stdout == "[]\n"
    result = run(empty)
    assert (result.stdout, result.stderr) == ("", "No backups found\n")


def test_one_backup_as_wal_e_shows_it(app: FakeApp) -> None:
    assert [row["backup_name"] for row in json.loads(run(app, "LATEST", "--json").stdout)] == [FIRST]
    assert [row["backup_name"] for row in json.loads(run(app, SECOND, "--json").stdout)] == [SECOND]


def test_a_backup_of_wal_e_hides_no_other(app: FakeApp) -> None:
    """It has no metadata.json; WAL-G then shows no details at all."""
    seal = {"wal_segment_backup_stop": "00000001000000000000001E", "wal_segment_offset_backup_stop": "00000080"}
    app.now = NOON + timedelta(hours=9)
    app.made.store.put(keys.sentinel(WAL_E), json.dumps(seal).encode())
    app.made.store.put(keys.extended_version(WAL_E), b"PostgreSQL 14.2 on x86_64-pc-linux-gnu")
    app.made.store.put(keys.sentinel("base_broken"), b"not JSON")
    rows = {row["backup_name"]: row for row in json.loads(run(app, "--json", "--detail").stdout)}
    assert set(rows) == {FIRST, SECOND, WAL_E, "base_broken"}
    assert rows[WAL_E]["wal_file_name"] == "00000001000000000000001E"
    assert rows[WAL_E]["finish_time"] == "2026-03-01T21:00:00Z"
    assert rows[WAL_E]["pg_version"] == 140002
    assert rows["base_broken"]["wal_file_name"] == "Z" * 24
    assert len(run(app, "--detail").stdout.splitlines()) == 5


def test_a_seal_with_a_list_of_all_files_is_not_kept_in_memory(app: FakeApp) -> None:
    """WAL-G before 1.0 wrote one, and had no metadata.json."""
    document = json.loads(app.made.store.get(keys.sentinel(FIRST)))
    files = {f"/base/1/{number}": {"MTime": "2026-03-01T12:00:00Z"} for number in range(100_000)}
    del document["UserData"]
    app.made.store.put(keys.sentinel(FIRST), json.dumps(document | {"Files": files}).encode())
    app.made.store.delete([keys.metadata(FIRST)])
    del document, files
    tracemalloc.start()
    try:
        rows = json.loads(run(app, "--detail", "--json").stdout)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert next(row for row in rows if row["backup_name"] == FIRST)["start_lsn"] == 10 * MIB + 40
    assert peak < 4 << 20


def test_a_time_that_cannot_be_hides_no_backup(app: FakeApp) -> None:
    """Go's zero time, whose moment may lie before the year 1."""
    document = json.loads(app.made.store.get(keys.metadata(FIRST)))
    document |= {"start_time": "0001-01-01T00:00:00+01:00", "finish_time": "0001-01-01T00:00:00Z"}
    app.made.store.put(keys.metadata(FIRST), json.dumps(document).encode())
    rows = [line.split() for line in run(app, "--detail").stdout.splitlines()[1:]]
    assert {row[0]: row[4:6] for row in rows}[FIRST] == ["-", "-"]
    assert len(rows) == 2
    found = {row["backup_name"]: row for row in json.loads(run(app, "--json", "--detail").stdout)}
    assert found[FIRST]["finish_time"] == "0001-01-01T00:00:00Z"


def test_a_name_does_not_speak_to_the_terminal(app: FakeApp) -> None:
    app.made.store.put(keys.sentinel("base_\x1b]0;x\x07"), b"{}")
    for words in ([], ["--pretty"], ["--detail"]):
        output = run(app, *words).stdout
        assert "base_\\x1b]0;x\\x07" in output
        assert "\x1b" not in output
