"""The tick: the ``schedule`` library calls jobs that only look at the clock or set an event.

It never decides whether something is due; that is read from the repository, so missed ticks, clock jumps and restarts
lose nothing. An own Scheduler object, used by one thread; an exception of a job is logged and the tick goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import schedule

from pgbackup.engines.base import StopSignal

_log = logging.getLogger(__name__)


class Ticker:
    """Calls each added function every so many seconds, from the thread that runs ``run``."""

    def __init__(self) -> None:
        self._scheduler = schedule.Scheduler()

    def every(self, seconds: int, work: Callable[[], object]) -> None:
        self._scheduler.every(seconds).seconds.do(_guarded(work))

    def run(self, stop: StopSignal) -> None:
        """Tick until ``stop`` is set; every job runs once at the start."""
        self._scheduler.run_all()
        while not stop.is_set():
            self._scheduler.run_pending()
            idle = self._scheduler.idle_seconds
            stop.wait(min(1.0, max(0.05, idle if idle is not None else 1.0)))


def _guarded(work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - a job that fails must not end the tick for the others
            _log.exception("a scheduled job failed")

    return run
