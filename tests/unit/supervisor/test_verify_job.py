"""The scheduled verification: what it found is recorded and handed on, also when that is no error of its own."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from pgbackup.core.health_facts import LastRun
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.supervisor.health_look import read_last_run, write_last_run
from pgbackup.supervisor.verify_job import VerifyJob
from tests.made_backup import FILES, MadeRepository
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


def back_up(made: MadeRepository, start: Lsn, minutes: int = 0) -> str:
    """A backup with a label of its own; returns its name."""
    segment = SegmentName.containing(1, start, made.segment_bytes)
    label = f"START WAL LOCATION: {start} (file {segment})\n".encode()
    return made.backup(start, Lsn(start + 900), files={**FILES, "backup_label": label}, minutes=minutes)


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


def test_damage_is_remembered_while_newer_backups_are_found_whole() -> None:
    """That the newest is whole mends no other; an object that is put back does."""
    made, wal = MadeRepository(), MadeWal()
    made.claim()
    for _ in range(4):
        wal.filler(900_000)
    made.wal(wal)
    older = back_up(made, Lsn(wal.start + 100))
    part = next(info.key for info in made.store.list() if "part_001" in info.key)
    data = made.store.get(part)
    made.store.put(part, bytes(len(data)))
    job = VerifyJob(made.store, made.codec)
    assert job.work(threading.Event())
    back_up(made, Lsn(wal.start + (1 << 20) + 100), minutes=60)
    for _ in range(2):
        assert not job.work(threading.Event())
        run = read_last_run(made.store, keys.VERIFICATION)
        assert run is not None
        assert (run.ok, run.damaged) == (True, (older,))
    made.store.put(part, data)
    assert not job.work(threading.Event())
    run = read_last_run(made.store, keys.VERIFICATION)
    assert run is not None
    assert run.damaged == ()


def test_what_was_found_whole_is_recorded_with_the_begin_of_reading_it() -> None:
    made, wal = MadeRepository(), MadeWal()
    made.claim()
    for _ in range(4):
        wal.filler(900_000)
    made.wal(wal)
    older = back_up(made, Lsn(wal.start + 100))
    began = made.store.clock()
    VerifyJob(made.store, made.codec).work(threading.Event())
    first = read_last_run(made.store, keys.VERIFICATION)
    assert first is not None
    assert first.began is not None
    assert began <= first.began <= first.finished
    assert first.whole == {older: first.began}
    newer = back_up(made, Lsn(wal.start + (1 << 20) + 100), minutes=60)
    part = next(info.key for info in made.store.list(keys.tar_folder(newer)) if "part_001" in info.key)
    data = made.store.get(part)
    made.store.put(part, bytes(len(data)))
    VerifyJob(made.store, made.codec).work(threading.Event())
    second = read_last_run(made.store, keys.VERIFICATION)
    assert second is not None
    assert (second.whole, second.damaged) == ({older: first.began}, (newer,))
    made.store.put(part, data)
    VerifyJob(made.store, made.codec).work(threading.Event())
    third = read_last_run(made.store, keys.VERIFICATION)
    assert third is not None
    assert third.whole == {older: first.began, newer: third.began}


def test_a_verification_that_a_wrong_clock_put_into_the_future_is_due_again() -> None:
    made = filled()
    job = VerifyJob(made.store, made.codec)
    now = datetime.now(UTC)
    write_last_run(made.store, keys.VERIFICATION, LastRun(now, ok=True))
    assert job.last_done() == now
    write_last_run(made.store, keys.VERIFICATION, LastRun(now + timedelta(days=365), ok=True))
    assert job.last_done() == read_catalog(made.store, made.codec).backups[0].finished


def test_nothing_to_verify_is_no_damage() -> None:
    made = MadeRepository()
    made.claim()
    assert VerifyJob(made.store, made.codec).work(threading.Event()) == ""
