"""The spool: whose it is, and that nobody takes it for an abandoned one."""

from __future__ import annotations

import fcntl
import stat
from pathlib import Path

import pytest

from pgbackup.engines.wale.spool import Spool


def test_one_that_is_just_being_made_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes at once, as recovery calls wal-fetch beside its prefetcher: the second looks for abandoned spools
    when the first has made its lock and does not hold it yet."""
    second: list[Spool] = []
    lock = fcntl.flock

    def slow_lock(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        second.append(Spool(tmp_path))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", slow_lock)
    first = Spool(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([first.folder, second[0].folder])
    assert stat.S_IMODE(first.folder.stat().st_mode) == 0o700
    third = Spool(tmp_path)
    assert first.folder.is_dir()
    for spool in (first, *second, third):
        spool.close()
    assert list(tmp_path.iterdir()) == []


def test_that_of_a_dead_process_goes(tmp_path: Path) -> None:
    dead = tmp_path / "pgbackup-spool-dead"
    (dead / "1" / "pg_wal").mkdir(parents=True)
    (dead / "lock").touch()
    spool = Spool(tmp_path)
    assert list(tmp_path.iterdir()) == [spool.folder]
    spool.close()
