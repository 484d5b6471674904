"""The scheduled verification: what it found is recorded and handed on, also when that is no error of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.core.health_facts import LastRun
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.retention_policy import RetentionPolicy
from pgbackup.engines.base import SilentProgress
from pgbackup.engines.expire.expire import ExpiryRequest, run_expiry
from pgbackup.engines.verify.verify import VerifyReport, choose_backup, verify_backup
from pgbackup.errors import CheckFailed
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.verification_note import read_verification, write_verification
from pgbackup.supervisor.verification_record import begin_verification, record_verification
from pgbackup.supervisor.verify_job import VerifyJob
from tests.made_backup import FILES, MadeRepository
from tests.made_wal import MadeWal


def claimed(fillers: int = 4) -> tuple[MadeRepository, MadeWal]:
    """A repository with nothing but WAL, of some 0.9 MB for each filler."""
    made, wal = MadeRepository(), MadeWal()
    made.claim()
    for _ in range(fillers):
        wal.filler(900_000)
    made.wal(wal)
    return made, wal


def filled() -> MadeRepository:
    """One backup with its WAL."""
    made, _ = claimed(3)
    made.backup(Lsn(0x300028), Lsn(0x300400))
    return made


def back_up(made: MadeRepository, start: Lsn, minutes: int = 0, *, permanent: bool = False) -> str:
    """A backup with a label of its own; returns its name."""
    segment = SegmentName.containing(1, start, made.segment_bytes)
    label = f"START WAL LOCATION: {start} (file {segment})\n".encode()
    return made.backup(
        start, Lsn(start + 900), files={**FILES, "backup_label": label}, minutes=minutes, permanent=permanent
    )


def test_damage_is_found_recorded_and_told() -> None:
    made = filled()
    assert VerifyJob(made.store, made.codec).work(threading.Event()) == ""
    part = next(info.key for info in made.store.list() if "part_001" in info.key)
    made.store.put(part, bytes(len(made.store.get(part))))
    found = VerifyJob(made.store, made.codec).work(threading.Event())
    assert "part_001" in found
    run = read_verification(made.store)
    assert run is not None
    assert not run.ok
    assert datetime.now(UTC) - run.finished < timedelta(minutes=1)


def test_damage_is_remembered_while_newer_backups_are_found_whole() -> None:
    """That the newest is whole mends no other; an object that is put back does."""
    made, wal = claimed()
    older = back_up(made, Lsn(wal.start + 100))
    part = next(info.key for info in made.store.list() if "part_001" in info.key)
    data = made.store.get(part)
    made.store.put(part, bytes(len(data)))
    job = VerifyJob(made.store, made.codec)
    assert job.work(threading.Event())
    back_up(made, Lsn(wal.start + (1 << 20) + 100), minutes=60)
    for _ in range(2):
        assert not job.work(threading.Event())
        run = read_verification(made.store)
        assert run is not None
        assert (run.ok, tuple(run.damaged)) == (True, (older,))
    made.store.put(part, data)
    assert not job.work(threading.Event())
    run = read_verification(made.store)
    assert run is not None
    assert tuple(run.damaged) == ()


def test_wal_that_expiry_removed_behind_a_backup_that_it_kept_is_no_damage() -> None:
    """An earlier version recorded it as that; somebody's deletion is."""
    made, wal = claimed()
    older = back_up(made, Lsn(wal.start + 100), permanent=True)
    newer = back_up(made, Lsn(wal.start + (2 << 20) + 100), minutes=60)
    policy = RetentionPolicy(backups=1, window=timedelta(0))
    report = run_expiry(ExpiryRequest(made.store, made.codec, policy, UTC, threading.Event(), lambda: True))
    assert (report.backups, report.removed.objects) == ((), 1)
    doubt = LastRun(datetime.now(UTC), ok=True, damaged=dict.fromkeys([older]))
    for record, damaged in ((made.store.get(keys.EXPIRY), ()), (b"{", (older,))):
        made.store.put(keys.EXPIRY, record)
        write_verification(made.store, doubt)
        assert VerifyJob(made.store, made.codec).work(threading.Event()) == ""
        run = read_verification(made.store)
        assert run is not None
        assert (run.ok, tuple(run.damaged)) == (True, damaged)
        assert newer in run.whole


def test_what_was_found_whole_is_recorded_with_the_begin_of_reading_it() -> None:
    made, wal = claimed()
    older = back_up(made, Lsn(wal.start + 100))
    began = made.store.clock()
    VerifyJob(made.store, made.codec).work(threading.Event())
    first = read_verification(made.store)
    assert first is not None
    assert first.began is not None
    assert began <= first.began <= first.finished
    assert first.whole == {older: first.began}
    newer = back_up(made, Lsn(wal.start + (1 << 20) + 100), minutes=60)
    part = next(info.key for info in made.store.list(keys.tar_folder(newer)) if "part_001" in info.key)
    data = made.store.get(part)
    made.store.put(part, bytes(len(data)))
    VerifyJob(made.store, made.codec).work(threading.Event())
    second = read_verification(made.store)
    assert second is not None
    assert (second.whole, tuple(second.damaged)) == ({older: first.began}, (newer,))
    made.store.put(part, data)
    VerifyJob(made.store, made.codec).work(threading.Event())
    third = read_verification(made.store)
    assert third is not None
    assert third.whole == {older: first.began, newer: third.began}


def test_a_verification_that_a_wrong_clock_put_into_the_future_is_due_again() -> None:
    made = filled()
    job = VerifyJob(made.store, made.codec)
    now = datetime.now(UTC)
    write_verification(made.store, LastRun(now, ok=True))
    assert job.last_done() == now
    write_verification(made.store, LastRun(now + timedelta(days=365), ok=True))
    assert job.last_done() == read_catalog(made.store, made.codec).backups[0].finished


def part_of(made: MadeRepository, name: str) -> str:
    return next(i.key for i in made.store.list(keys.tar_folder(name)) if "part_001" in i.key)


class Meanwhile:
    """Does something once, when a key is opened: somebody is at work beside a verification."""

    def __init__(
        self, made: MadeRepository, key: str, act: Callable[[], object], *, operation: str = "open_read"
    ) -> None:
        self._made, self._at, self._act = made, (operation, key), act
        made.store.on_call = self._on_call

    def _on_call(self, operation: str, key: str) -> None:
        if (operation, key) == self._at:
            self._made.store.on_call = None
            self._act()


def test_damage_that_somebody_records_meanwhile_stands() -> None:
    """The part is damaged behind the reader, and somebody else reads it after that."""
    made, older, newer = two_backups()
    job = VerifyJob(made.store, made.codec)
    assert job.work(threading.Event()) == ""
    found = LastRun(datetime.now(UTC), ok=False, summary="damage", damaged=dict.fromkeys([newer, older]))
    Meanwhile(made, part_of(made, newer), lambda: write_verification(made.store, found))
    assert job.work(threading.Event()) == ""
    run = read_verification(made.store)
    assert run is not None
    # The older one was read again after that.
    assert (run.ok, run.summary, tuple(run.damaged)) == (False, "damage", (newer,))
    assert job.work(threading.Event()) == ""
    run = read_verification(made.store)
    assert run is not None
    assert (run.ok, tuple(run.damaged), set(run.whole)) == (True, (), {older, newer})


def test_two_that_record_at_once_lose_nothing() -> None:
    made, older, newer = two_backups()
    begun = begin_verification(made.store)
    catalog = read_catalog(made.store, made.codec)

    def report(name: str) -> VerifyReport:
        backup = choose_backup(catalog, name)
        return verify_backup(made.store, made.codec, catalog, backup, progress=SilentProgress())

    assert record_verification(made.store, catalog, report(newer), begun)
    begun = begin_verification(made.store)
    made.store.put(part_of(made, newer), b"")
    made.store.put(part_of(made, older), b"")
    of_newer, of_older = report(newer), report(older)
    # Both have read the same record before either replaces it.
    Meanwhile(
        made, keys.VERIFICATION, lambda: record_verification(made.store, catalog, of_older, begun), operation="replace"
    )
    record_verification(made.store, catalog, of_newer, begun)
    run = read_verification(made.store)
    assert run is not None
    assert (run.ok, set(run.damaged)) == (False, {older, newer})


def test_a_backup_that_is_removed_while_it_is_read_is_no_damage() -> None:
    """Expiry beside it: retention keeps one backup, and a newer one was sealed meanwhile."""
    made, older, newer = two_backups()
    job = VerifyJob(made.store, made.codec)
    assert job.work(threading.Event()) == ""
    before = read_verification(made.store)
    names = [keys.sentinel(newer), *(info.key for info in made.store.list(keys.backup_folder(newer)))]
    Meanwhile(made, part_of(made, newer), lambda: made.store.delete(names))
    with pytest.raises(CheckFailed, match="removed while it was verified"):
        job.work(threading.Event())
    assert read_verification(made.store) == before
    assert job.work(threading.Event()) == ""
    after = read_verification(made.store)
    assert after is not None
    assert set(after.whole) == {older}


def test_what_ends_early_records_nothing() -> None:
    made, _, newer = two_backups()
    stop = threading.Event()
    Meanwhile(made, part_of(made, newer), stop.set)
    with pytest.raises(CheckFailed, match="was stopped"):
        VerifyJob(made.store, made.codec).work(stop)
    assert read_verification(made.store) is None


def two_backups() -> tuple[MadeRepository, str, str]:
    made, wal = claimed()
    older = back_up(made, Lsn(wal.start + 100))
    return made, older, back_up(made, Lsn(wal.start + (1 << 20) + 100), minutes=60)


def test_nothing_to_verify_is_no_damage() -> None:
    made = MadeRepository()
    made.claim()
    assert VerifyJob(made.store, made.codec).work(threading.Event()) == ""
