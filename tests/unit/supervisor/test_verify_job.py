"""The scheduled verification: what it found is recorded and handed on, also when that is no error of its own."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from pgbackup.core.lsn import Lsn
from pgbackup.repository import keys
from pgbackup.supervisor.health_look import read_last_run
from pgbackup.supervisor.verify_job import VerifyJob
from tests.made_backup import MadeRepository
from tests.made_wal import MadeWal


def filled() -> MadeRepository:
    """One backup with its WAL."""
    made, wal = MadeRepository(), MadeWal()
    made.claim()
    for _ in range(3):
        wal.filler(900_000)
    made.wal(wal)
    made.backup(Lsn(0x300028), Lsn(0x300400))
    return made


def test_damage_is_found_recorded_and_told() -> None:
    made = filled()
    assert VerifyJob(made.store, made.codec).work(threading.Event()) == ""
    part = next(info.key for info in made.store.list() if "part_001" in info.key)
    made.store.put(part, bytes(len(made.store.get(part))))
    found = VerifyJob(made.store, made.codec).work(threading.Event())
    assert "part_001" in found
    run = read_last_run(made.store, keys.VERIFICATION)
    assert run is not None
    assert not run.ok
    assert datetime.now(UTC) - run.finished < timedelta(minutes=1)


def test_nothing_to_verify_is_no_damage() -> None:
    made = MadeRepository()
    made.claim()
    assert VerifyJob(made.store, made.codec).work(threading.Event()) == ""
