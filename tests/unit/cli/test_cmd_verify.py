"""``verify`` and ``wal-push`` as commands, over a repository in a directory: what they print, and how they exit."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pgbackup.cli import main as cli
from pgbackup.core.health_facts import LastRun
from pgbackup.core.lsn import MIB, Lsn
from pgbackup.core.removed_wal import RemovedWal
from pgbackup.repository import keys
from pgbackup.repository.expiry_record import ExpiryRecord
from pgbackup.repository.key_check import check_key
from pgbackup.repository.verification_note import read_verification, write_verification
from pgbackup.storage.file import FileStore
from tests.made_backup import NOON, MadeRepository
from tests.made_wal import MadeWal

START, STOP = Lsn(3 * MIB + 40), Lsn(4 * MIB + 400)


@pytest.fixture(autouse=True)
def _quiet_root_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgbackup.logs.configure", lambda **options: None)


@pytest.fixture
def wal() -> MadeWal:
    wal = MadeWal(3)
    wal.fill_to(2.5)
    return wal


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wal: MadeWal) -> MadeRepository:
    monkeypatch.setenv("PGBACKUP_REPOSITORY", f"file://{tmp_path}/repository")
    made = MadeRepository(store=FileStore(tmp_path / "repository"))
    made.claim()
    made.backup(START, STOP)
    made.wal(wal)
    return made


def test_a_whole_backup(made: MadeRepository, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["verify"]) == 0
    text = capsys.readouterr().out
    assert "everything is there and whole" in text
    assert "WAL of timeline 1: 0/300000 to" in text
    assert cli.run(["verify", "--wal", "needed", "--backup", "base_000000010000000000000003", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["segments"], document["findings"]) == (True, 2, [])


def test_damage_is_named_and_exits_with_1(made: MadeRepository, capsys: pytest.CaptureFixture[str]) -> None:
    key = made.segment_key(1, 4)
    made.store.put(key, made.store.get(key)[:-5])
    assert cli.run(["verify"]) == 1
    captured = capsys.readouterr()
    assert key in captured.out
    assert "is not whole: 1 finding\n" in captured.err
    assert cli.run(["verify", "--json"]) == 1
    [finding] = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["kind"], finding["object"]) == ("damaged", key)


# -- what is recorded ---------------------------------------------------------------------------------------------


@pytest.fixture
def ours(made: MadeRepository) -> MadeRepository:
    """As `pgbackup run` leaves it."""
    check_key(made.store, made.codec)
    return made


def test_only_with_record_anything_is_written(ours: MadeRepository, capsys: pytest.CaptureFixture[str]) -> None:
    before = {info.key for info in ours.store.list()}
    assert cli.run(["verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recorded"] is False
    assert {info.key for info in ours.store.list()} == before
    assert cli.run(["verify", "--record", "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["ok"], document["recorded"]) == (True, True)
    assert "the verdict is recorded" in captured.err
    assert {info.key for info in ours.store.list()} == before | {keys.VERIFICATION}
    run = read_verification(ours.store)
    assert run is not None
    assert (run.ok, list(run.whole)) == (True, ["base_000000010000000000000003"])


def test_damage_is_recorded_and_exits_with_1(ours: MadeRepository, capsys: pytest.CaptureFixture[str]) -> None:
    key = ours.segment_key(1, 4)
    whole = ours.store.get(key)
    ours.store.put(key, whole[:-5])
    assert cli.run(["verify", "--record"]) == 1
    captured = capsys.readouterr()
    assert key in captured.out
    assert "the verdict is recorded" in captured.err
    run = read_verification(ours.store)
    assert run is not None
    assert (run.ok, tuple(run.damaged)) == (False, ("base_000000010000000000000003",))
    assert key in run.summary
    ours.store.put(key, whole)
    assert cli.run(["verify", "--record"]) == 0
    run = read_verification(ours.store)
    assert run is not None
    assert (run.ok, tuple(run.damaged)) == (True, ())


def test_only_a_whole_verification_is_recorded(ours: MadeRepository, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["verify", "--record", "--wal", "needed"]) == 2
    assert "only a whole verification is recorded" in capsys.readouterr().err
    assert read_verification(ours.store) is None


@pytest.mark.parametrize("missing", [keys.CLUSTER, keys.KEY_CHECK])
def test_where_nobody_judges_by_it_nothing_is_written(
    ours: MadeRepository, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    ours.store.delete([missing])
    before = {info.key for info in ours.store.list()}
    assert cli.run(["verify", "--record"]) == 1
    assert "nobody judges by what is recorded" in capsys.readouterr().err
    assert {info.key for info in ours.store.list()} == before


def test_another_key_records_no_damage(
    ours: MadeRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGBACKUP_ENCRYPTION_KEY", "another key of 32 bytes and more")
    assert cli.run(["verify", "--record"]) == 2
    assert "the repository is not encrypted" in capsys.readouterr().err
    assert read_verification(ours.store) is None


def test_an_older_backup_alone_is_no_verdict(ours: MadeRepository, capsys: pytest.CaptureFixture[str]) -> None:
    newest = ours.backup(Lsn(4 * MIB + 40), Lsn(4 * MIB + 400), minutes=60)
    older = "base_000000010000000000000003"
    assert cli.run(["verify", "--record", "--backup", older]) == 1
    assert f"the newest backup, {newest}, was never verified" in capsys.readouterr().err
    assert read_verification(ours.store) is None
    write_verification(ours.store, LastRun(datetime.now(UTC), ok=True, damaged=dict.fromkeys([older])))
    assert cli.run(["verify", "--record", "--backup", older]) == 0
    run = read_verification(ours.store)
    assert run is not None
    assert (tuple(run.damaged), list(run.whole)) == ((), [older])


def test_a_backup_that_expiry_left_without_the_wal_after_it_is_whole(
    ours: MadeRepository, wal: MadeWal, capsys: pytest.CaptureFixture[str]
) -> None:
    wal.fill_to(3.5)
    ours.wal(wal)
    ours.backup(Lsn(6 * MIB + 40), Lsn(6 * MIB + 400), minutes=60)
    write_verification(ours.store, LastRun(datetime.now(UTC), ok=True))
    older = ["verify", "--record", "--backup", "base_000000010000000000000003"]
    ours.store.delete([ours.segment_key(1, 5)])
    assert cli.run(older) == 1
    assert "there is WAL behind it" in capsys.readouterr().out
    record = ExpiryRecord(NOON, None, frozenset(), removed_wal=RemovedWal({1: [(5, 6)]}))
    ours.store.put(keys.EXPIRY, record.encode())
    assert cli.run(older) == 0
    assert "everything is there and whole" in capsys.readouterr().out
    run = read_verification(ours.store)
    assert run is not None
    assert not run.damaged
    ours.store.put(keys.EXPIRY, b"{")
    assert cli.run(older) == 1
    assert "note: which WAL expiry has removed is not known" in capsys.readouterr().out


def test_what_was_found_is_said_though_it_cannot_be_recorded(
    ours: MadeRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder lies where the record should: what the disk says of that is not what the backup is."""
    (ours.store._root / keys.VERIFICATION / "x").mkdir(parents=True)
    assert cli.run(["verify", "--record", "--json"]) == 3
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["ok"], document["recorded"]) == (True, False)
    assert keys.VERIFICATION in captured.err


def test_no_backup_to_verify(made: MadeRepository, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["verify", "--backup", "base_x"]) == 1
    assert "no backup base_x" in capsys.readouterr().err


def test_pushing_wal(
    made: MadeRepository,
    wal: MadeWal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pg_wal").mkdir()
    name = "000000010000000000000004"
    Path("pg_wal", name).write_bytes(wal.segment(4))
    made.store.delete([made.segment_key(1, 4)])
    assert cli.run(["wal-push", f"pg_wal/{name}"]) == 0
    assert made.codec.decode(keys.wal(name, "zst"), made.store.get(keys.wal(name, "zst"))) == wal.segment(4)
    assert cli.run(["wal-push", f"pg_wal/{name}"]) == 0
    Path("pg_wal", name).write_bytes(wal.segment(4)[:-1] + b"!")
    capsys.readouterr()
    assert cli.run(["wal-push", f"pg_wal/{name}"]) == 4
    assert keys.wal(name, "zst") in capsys.readouterr().err
    assert cli.run(["wal-push", "pg_wal/postgresql.conf"]) == 2
