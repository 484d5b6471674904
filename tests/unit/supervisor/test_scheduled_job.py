"""When scheduled work runs: decided from the repository, one at a time, retried, never in a storm."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from pgbackup.config.settings import load_settings
from pgbackup.engines.base import StopSignal
from pgbackup.errors import BackupError, ConnectionLost, StoreUnavailable
from pgbackup.supervisor.from_settings import Schedules
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
        self.elsewhere = ""
        self.taken: list[datetime] = []
        self.looks = 0
        self.failures: list[Exception] = []
        self.found = ""
        self.seen: list[str] = []
        ports = JobPorts(self.last_backup, lambda: self.lease, self.take, self.next_due, lambda: self.elsewhere)
        self.job = ScheduledJob("base backup", ports, observer=self, clock=lambda: self.now)

    def started(self, job: str) -> None:
        self.seen.append("started")

    def ended(self, job: str, seconds: float, problem: str) -> None:
        self.seen.append(problem or "done")

    def last_backup(self) -> datetime | None:
        self.looks += 1
        return self.last

    def next_due(self, last: datetime | None, now: datetime) -> datetime:
        return now if last is None else last + DAY

    def take(self, stop: StopSignal) -> str:
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(self.now)
        self.last = self.now
        return self.found

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


def test_none_is_started_while_another_process_takes_one() -> None:
    """Somebody's, by hand, which takes longer than until the next of the schedule; when it is done it counts."""
    world = World(START - DAY)
    world.elsewhere = "base_1, which process 7 on db-1 is taking"
    world.pass_time(timedelta(seconds=5), times=100)
    assert not world.taken
    assert not world.job.view().failures
    world.last, world.elsewhere = world.now, ""
    world.pass_time(timedelta(seconds=5), times=100)
    assert not world.taken
    world.elsewhere = "base_2"
    world.job.run_now()
    world.job.run_if_wanted(world.stop)
    assert len(world.taken) == 1, "after a gap one is wanted that begins now"


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
    for jump in (400, -400, -400, -400, 400, 400, 400):
        before = len(world.taken)
        world.pass_time(jump * DAY)
        world.pass_time(timedelta(seconds=5), times=50)
        assert len(world.taken) <= before + (jump > 0), "a day or a year later, one backup is due"


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


def test_a_bug_in_the_work_is_no_success_and_no_storm() -> None:
    """It ends the worker, which is started again at once: the work waits for its turn all the same."""
    world = World(None)
    world.failures = [ZeroDivisionError("the test's")] * 2
    with pytest.raises(ZeroDivisionError):
        world.pass_time(timedelta(seconds=5))
    assert world.seen == ["started", "ZeroDivisionError: the test's"]
    assert world.job.view().failures == 1
    assert not world.job.view().running
    world.pass_time(timedelta(seconds=5), times=10)
    assert world.seen == ["started", "ZeroDivisionError: the test's"]
    with pytest.raises(ZeroDivisionError):
        world.pass_time(timedelta(minutes=1))


def test_what_the_work_found_is_told_and_not_tried_again() -> None:
    """A verification that found damage has done its work, and is no green light."""
    world = World(None)
    world.found = "2 objects are damaged"
    world.pass_time(timedelta(minutes=2), times=5)
    assert world.seen == ["started", "2 objects are damaged"]
    assert world.job.view().failures == 0


def test_a_clock_that_was_ahead_and_is_set_right_does_not_stop_the_schedule() -> None:
    """The next time was computed while it was ahead by years."""
    world = World(None)
    world.now = START + 3000 * DAY
    world.pass_time(timedelta(seconds=5))
    assert len(world.taken) == 1
    world.pass_time(-3000 * DAY)
    world.pass_time(timedelta(hours=1), times=30)
    assert len(world.taken) == 2


def test_a_clock_that_is_set_back_a_little_asks_nothing() -> None:
    world = World(START - DAY / 2)
    world.pass_time(timedelta(seconds=5))
    world.pass_time(timedelta(seconds=-3))
    world.pass_time(timedelta(seconds=5), times=5)
    assert world.looks == 1


def test_a_server_that_is_still_starting_does_not_put_the_first_backup_off_by_a_minute() -> None:
    world = World(None)
    asked: list[datetime] = []

    def may_run() -> bool:
        asked.append(world.now)
        if len(asked) <= 6:
            raise ConnectionLost("starting")
        return True

    ports = JobPorts(world.last_backup, may_run, world.take, world.next_due)
    world.job = ScheduledJob("base backup", ports, clock=lambda: world.now)
    world.pass_time(timedelta(seconds=1), times=220)
    pauses = [(later - earlier).total_seconds() for earlier, later in pairwise(asked)]
    assert pauses == [5, 10, 20, 40, 60, 60]
    assert len(world.taken) == 1


class LongWork(World):
    """Work during which the clock goes on and ticks, as in the process."""

    def take(self, stop: StopSignal) -> str:
        for _ in range(24):
            self.now += timedelta(seconds=5)
            self.job.tick()
        return super().take(stop)


def test_a_backup_that_fails_after_a_while_is_not_begun_again_without_a_pause() -> None:
    world = LongWork(None)
    world.failures = [BackupError("the test's")] * 3
    world.pass_time(timedelta(seconds=5))
    assert world.seen == ["started", "the test's"]
    world.pass_time(timedelta(seconds=5), times=11)
    assert len(world.seen) == 2, "a minute has not passed"
    world.pass_time(timedelta(seconds=5))
    assert len(world.seen) == 4
    world.pass_time(timedelta(seconds=5), times=23)
    assert len(world.seen) == 4, "two minutes have not passed"


def test_long_work_whose_result_does_not_count_is_not_repeated_without_end() -> None:
    """A backup with damaged pages is sealed, and is no backup that can be restored: the repository still has none."""
    world = LongWork(None)
    world.last_backup = lambda: None  # type: ignore[method-assign]
    world.job = ScheduledJob(
        "base backup",
        JobPorts(lambda: None, lambda: True, world.take, lambda last, now: last + DAY if last == now else now),
        clock=lambda: world.now,
    )
    world.pass_time(timedelta(seconds=5), times=200)
    assert len(world.taken) == 1


def test_what_was_asked_for_waits_for_the_lease() -> None:
    """After a failover the lease of the old primary is alive for three minutes more."""
    world = World(START)
    world.pass_time(timedelta(seconds=5))
    world.lease = False
    world.job.run_now()
    world.pass_time(timedelta(minutes=1), times=3)
    assert world.taken == []
    world.lease = True
    world.pass_time(timedelta(minutes=2))
    assert len(world.taken) == 1
    world.pass_time(timedelta(minutes=2), times=3)
    assert len(world.taken) == 1


def test_what_is_asked_for_while_a_run_fails_is_not_forgotten() -> None:
    world = World(None)

    def fail(stop: StopSignal) -> str:
        if not world.seen.count("done"):
            world.job.run_now()
            world.last = world.now
            world.seen.append("done")
            raise BackupError("the test's")
        return world.take(stop)

    world.job = ScheduledJob(
        "base backup", JobPorts(world.last_backup, lambda: True, fail, world.next_due), clock=lambda: world.now
    )
    world.pass_time(timedelta(seconds=5))
    world.pass_time(timedelta(minutes=2))
    assert len(world.taken) == 1


@pytest.mark.parametrize("lease", [True, False])
def test_a_failure_is_over_when_nothing_is_missing_any_more(lease: bool) -> None:
    """A backup by hand, or by the process that holds the lease, is the answer to three that failed."""
    world = World(None)
    world.failures = [BackupError("the test's")] * 3
    world.pass_time(timedelta(minutes=10), times=3)
    assert world.job.view().failures == 3
    world.lease = lease
    if lease:
        world.last = world.now
    world.pass_time(timedelta(minutes=10))
    assert (world.job.view().failures, world.job.view().error) == (0, "")
    assert world.taken == []


def test_a_store_that_was_away_for_a_moment_leaves_no_failure_behind() -> None:
    world = World(START)
    answer, answers = world.last, [StoreUnavailable("the test's")] * 3

    def last_backup() -> datetime | None:
        if answers:
            raise answers.pop()
        return answer

    ports = JobPorts(last_backup, lambda: True, world.take, world.next_due)
    world.job = ScheduledJob("base backup", ports, clock=lambda: world.now)
    world.pass_time(timedelta(minutes=1), times=3)
    assert world.job.view().failures == 3
    world.pass_time(timedelta(minutes=1), times=2)
    assert world.job.view().failures == 0
    assert world.taken == []


def test_what_was_asked_for_and_failed_is_still_asked_for_after_looks_in_between() -> None:
    """The worker looks twice a second whether something is wanted."""
    world = World(START)
    world.pass_time(timedelta(seconds=5))
    world.failures = [BackupError("the test's")]
    world.job.run_now()
    for _ in range(20):
        world.pass_time(timedelta(seconds=5))
        world.job.run_if_wanted(world.stop)
    assert len(world.taken) == 1


@pytest.mark.parametrize("schedule", ["daily at 02:30", "every 1 day"])
def test_with_jitter_there_is_one_backup_a_day_within_it(schedule: str) -> None:
    """Across the end of winter time; each backup takes an hour, and is dated by the store a little later."""
    environ = {
        "PGBACKUP_REPOSITORY": "file:///nowhere", "PGBACKUP_SCHEDULE": schedule, "PGBACKUP_TIMEZONE": "Europe/Berlin",
        "PGBACKUP_SCHEDULE_JITTER": "3h",
    }  # fmt: skip
    world = World(datetime(2026, 3, 25, 2, tzinfo=UTC))
    world.now = datetime(2026, 3, 25, 3, tzinfo=UTC)

    def take(stop: StopSignal) -> str:
        world.taken.append(world.now)
        world.now += timedelta(hours=1)
        world.last = world.now - timedelta(seconds=7)
        return ""

    ports = JobPorts(world.last_backup, lambda: True, take, Schedules(load_settings(environ=environ)).next_backup)
    world.job = ScheduledJob("base backup", ports, clock=lambda: world.now)
    world.pass_time(timedelta(minutes=5), times=12 * 24 * 8)
    assert 6 <= len(world.taken) <= 8
    pauses = [later - earlier for earlier, later in pairwise(world.taken)]
    assert all(timedelta(hours=20) <= pause <= timedelta(hours=28, minutes=10) for pause in pauses), pauses
    if schedule.startswith("daily"):
        local = [moment.astimezone(ZoneInfo("Europe/Berlin")) for moment in world.taken]
        assert all("02:30" <= moment.strftime("%H:%M") <= "06:35" for moment in local), local
        assert len({moment.date() for moment in local}) == len(local)
        assert len({moment.strftime("%H:%M") for moment in local}) > 3, "each day another one"
