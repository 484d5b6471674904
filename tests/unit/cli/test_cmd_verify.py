"""``verify`` and ``wal-push`` as commands, over a repository in a directory: what they print, and how they exit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pgbackup.cli import main as cli
from pgbackup.core.lsn import MIB, Lsn
from pgbackup.repository import keys
from pgbackup.storage.file import FileStore
from tests.made_backup import MadeRepository
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
    assert "1 findings" in captured.err
    assert cli.run(["verify", "--json"]) == 1
    [finding] = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["kind"], finding["object"]) == ("damaged", key)


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
