"""When scheduled work runs: decided from the repository, one at a time, retried, never in a storm."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from pgbackup.engines.base import StopSignal
from pgbackup.errors import BackupError, PgbackupError, StoreUnavailable
from pgbackup.supervisor.scheduled_job import JobPorts, ScheduledJob

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class World:
    """A repository, a clock and a lease of the test's own; ``job`` works on them."""

    def __init__(self, last: datetime | None) -> None:
        self.now = START
        self.stop = threading.Event()
        self.last = last
        self.lease = True
        self.taken: list[datetime] = []
        self.looks = 0
        self.failures: list[Exception] = []
        self.seen: list[str] = []
        ports = JobPorts(self.last_backup, lambda: self.lease, self.take, self.next_due)
        self.job = ScheduledJob("base backup", ports, observer=self, clock=lambda: self.now)

    def started(self, job: str) -> None:
        self.seen.append("started")

    def ended(self, job: str, seconds: float, error: PgbackupError | None) -> None:
        self.seen.append(str(error) if error else "done")

    def last_backup(self) -> datetime | None:
        self.looks += 1
        return self.last

    def next_due(self, last: datetime | None, now: datetime) -> datetime:
        return now if last is None else last + DAY

    def take(self, stop: StopSignal) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(self.now)
        self.last = self.now

    def pass_time(self, step: timedelta, times: int = 1) -> None:
        """Tick at each step and let the worker do what it wants to do."""
        for _ in range(times):
            self.now += step
            self.job.tick()
            self.job.run_if_wanted(self.stop)


def test_an_empty_repository_gets_a_backup_at_once() -> None:
    world = World(None)
    world.pass_time(timedelta(seconds=5))
    assert len(world.taken) == 1


def test_after_downtime_the_overdue_backup_runs_at_once_and_only_once() -> None:
    world = World(START - 5 * DAY)
    world.pass_time(timedelta(seconds=5), times=10)
    assert len(world.taken) == 1


def test_nothing_is_asked_of_the_repository_before_the_time_has_come() -> None:
    world = World(START - DAY / 2)
    world.pass_time(timedelta(seconds=5), times=20)
    assert (world.taken, world.looks) == ([], 1)
    world.pass_time(DAY / 2)
    assert len(world.taken) == 1


def test_a_backup_made_by_hand_counts() -> None:
    world = World(START - DAY / 2)
    world.pass_time(timedelta(seconds=5))
    world.last = START + DAY / 4
    world.pass_time(DAY / 2)
    assert world.taken == []


def test_a_failed_backup_is_tried_again_with_growing_pauses() -> None:
    world = World(None)
    world.failures = [BackupError("the test's"), StoreUnavailable("the test's")]
    world.pass_time(timedelta(seconds=5), times=5)
    assert world.taken == []
    assert world.looks == 1
    world.pass_time(timedelta(minutes=1))
    assert world.looks == 2
    world.pass_time(timedelta(minutes=1))
    assert world.looks == 2
    world.pass_time(timedelta(minutes=1))
    assert len(world.taken) == 1


def test_without_the_lease_nothing_runs() -> None:
    world = World(None)
    world.lease = False
    world.pass_time(timedelta(seconds=5), times=3)
    assert world.taken == []
    world.lease = True
    world.pass_time(timedelta(minutes=2))
    assert len(world.taken) == 1


def test_a_clock_that_jumps_does_not_storm() -> None:
    world = World(START)
    world.pass_time(400 * DAY)
    world.pass_time(-400 * DAY, times=3)
    world.pass_time(400 * DAY, times=3)
    assert len(world.taken) <= 2


def test_every_run_is_told_to_the_observer() -> None:
    world = World(None)
    world.failures = [BackupError("the test's")]
    world.pass_time(timedelta(minutes=2), times=2)
    assert world.seen == ["started", "the test's", "started", "done"]


def test_the_view_says_how_often_it_failed_until_it_works() -> None:
    world = World(None)
    world.failures = [BackupError("the test's")] * 2
    world.pass_time(timedelta(minutes=5), times=2)
    assert (world.job.view().failures, world.job.view().error) == (2, "the test's")
    world.pass_time(timedelta(minutes=5), times=2)
    assert (world.job.view().failures, world.job.view().error) == (0, "")
    assert world.job.view().next_due == world.last + DAY


def test_work_that_is_asked_for_runs_before_it_is_due_and_is_retried() -> None:
    world = World(START)
    world.pass_time(timedelta(seconds=5))
    world.failures = [BackupError("the test's")]
    world.job.run_now()
    world.pass_time(timedelta(seconds=5))
    assert world.taken == []
    world.pass_time(timedelta(minutes=2))
    assert len(world.taken) == 1
    world.pass_time(timedelta(minutes=2), times=3)
    assert len(world.taken) == 1


def test_a_last_time_in_the_future_does_not_stop_the_schedule() -> None:
    world = World(START + 1000 * DAY)
    world.pass_time(timedelta(hours=1), times=30)
    assert len(world.taken) == 1
