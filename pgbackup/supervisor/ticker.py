"""The tick: the ``schedule`` library calls jobs that only look at the clock or set an event.

It never decides whether something is due; that is read from the repository, so missed ticks, clock jumps and restarts
lose nothing. An own Scheduler object, used by one thread; an exception of a job is logged and the tick goes on.

The library counts in naive local time. When that is set back (by an hour at the end of summer time, by more when a
clock is corrected) it would wait until the time is reached again, so the tick then begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import schedule

from pgbackup.engines.base import StopSignal

_DOUBT_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Ticker:
    """Calls each added function every so many seconds, from the thread that runs ``run``."""

    def __init__(self) -> None:
        self._scheduler = schedule.Scheduler()
        self._jobs: list[tuple[int, Callable[[], None]]] = []

    def every(self, seconds: int, work: Callable[[], object]) -> None:
        self._jobs.append((seconds, _guarded(work)))

    def run(self, stop: StopSignal) -> None:
        """Tick until ``stop`` is set; every job runs once at the start."""
        self._begin()
        while not stop.is_set():
            self._scheduler.run_pending()
            idle = self._scheduler.idle_seconds
            if idle is not None and idle > min(seconds for seconds, _ in self._jobs) + _DOUBT_SECONDS:
                _log.info("the local time was set back: the tick begins anew")
                self._begin()
            stop.wait(min(1.0, max(0.05, idle if idle is not None else 1.0)))

    def _begin(self) -> None:
        self._scheduler.clear()
        for seconds, work in self._jobs:
            self._scheduler.every(seconds).seconds.do(work)
        self._scheduler.run_all()


def _guarded(work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - a job that fails must not end the tick for the others
            _log.exception("a scheduled job failed")

    return run
