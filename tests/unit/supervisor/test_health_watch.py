"""What the health check makes of a stream that comes and goes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pgbackup.core.health_facts import Health, HealthFacts, JobView, StreamView
from pgbackup.core.lsn import Lsn
from pgbackup.core.wal_clock import WalClock
from pgbackup.engines.wal.progress import WalPosition, WalProgress
from pgbackup.errors import StoreUnavailable
from pgbackup.supervisor.health_watch import HealthSources, HealthWatch
from tests.made_catalog import minutes
from tests.made_health import LIMITS, green, judged, keys

UNUSED: Any = None
FULL = StoreUnavailable("the disk is full")


def streams(confirmed: int, server_end: int = 1000) -> WalPosition:
    return WalPosition(
        1, received=Lsn(server_end), confirmed=Lsn(confirmed), server_end=Lsn(server_end), streaming=True
    )


def made(progress: WalProgress) -> HealthWatch:
    return HealthWatch(UNUSED, LIMITS, progress, WalClock(), interval_seconds=60)


def test_a_store_that_takes_nothing_is_told_although_every_session_begins() -> None:
    """A disk that is full: streaming begins, ten seconds later it ends. Only that WAL grew old was told, not why."""
    progress = WalProgress()
    watch = made(progress)
    progress.publish(streams(500))
    assert watch._stream(progress.get(), minutes(0)).problem == ""
    for minute in range(1, 4):
        progress.note_problem(FULL, permanent=False)
        watch._stream(progress.get(), minutes(minute))
        progress.publish(streams(100))
        view = watch._stream(progress.get(), minutes(minute + 0.5))
    assert (view.streaming, view.since) == (True, minutes(1))
    health = judged(green(stream=view), now=minutes(3.5))
    assert keys(health) == ["stream:interrupted"]
    assert "the disk is full" in health.findings[0].summary


def test_a_session_that_gets_on_or_has_nothing_to_do_ends_the_trouble() -> None:
    for end in (streams(501), streams(500, 500)):
        progress = WalProgress()
        watch = made(progress)
        progress.publish(streams(500))
        watch.sample()
        progress.note_problem(FULL, permanent=False)
        watch.sample()
        assert watch._stream(progress.get(), minutes(1)).problem == "the disk is full"
        progress.publish(end)
        assert watch._stream(progress.get(), minutes(2)).problem == ""


def test_what_only_people_can_mend_is_permanent_while_nothing_streams() -> None:
    progress = WalProgress()
    watch = made(progress)
    progress.note_problem(FULL, permanent=True)
    view = watch._stream(progress.get(), minutes(0))
    assert (view.permanent, view.since) == (True, minutes(0))
    assert watch._stream(progress.get(), minutes(0) + timedelta(hours=1)).since == minutes(0)
    progress.publish(streams(1))
    assert not watch._stream(progress.get(), minutes(90)).permanent


def test_where_the_stored_wal_ended_is_what_was_known_before_the_look() -> None:
    """What is shipped while the bucket is listed may be missing from the listing."""
    progress = WalProgress()
    progress.publish(streams(500))
    shown: list[StreamView | None] = []

    def look() -> HealthFacts:
        progress.publish(streams(900))
        return green()

    def publish(health: Health, now: datetime) -> None:
        assert health.facts is not None
        shown.append(health.facts.stream)

    sources = HealthSources(look, JobView, lambda store_answers: (), publish)
    HealthWatch(sources, LIMITS, progress, WalClock(), interval_seconds=60)._round()
    assert shown[0] is not None
    assert (shown[0].timeline, shown[0].stored, shown[0].confirmed) == (1, Lsn(500), Lsn(900))
