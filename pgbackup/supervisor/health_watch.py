"""The health check of the resident process: looks, judges, and hands the verdict to whoever shows it.

At the interval of the settings, and more often in the first minutes, so that a new sidecar says soon how it is. What is
listed costs little (see repository/catalog_watch.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pgbackup.core.findings import Finding
from pgbackup.core.health import evaluate
from pgbackup.core.health_facts import Health, HealthFacts, HealthLimits, JobView, StreamView
from pgbackup.core.lsn import Lsn
from pgbackup.core.wal_clock import WalClock
from pgbackup.engines.base import StopSignal
from pgbackup.engines.wal.progress import WalPosition, WalProgress

_EARLY_SECONDS = 300.0
_EARLY_INTERVAL = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HealthSources:
    """``look`` at server and bucket; the job of the base backups; findings of ``others``, who are told whether the
    bucket has answered; ``publish`` takes the verdict."""

    look: Callable[[], HealthFacts]
    backups: Callable[[], JobView]
    others: Callable[[bool], Iterable[Finding]]
    publish: Callable[[Health, datetime], None]


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why nothing was shipped the last time, and since when nothing is."""

    problem: str
    since: datetime


class HealthWatch:
    """``run`` is a worker; ``sample`` is called every second by the tick."""

    def __init__(
        self,
        sources: HealthSources,
        limits: HealthLimits,
        progress: WalProgress,
        clock: WalClock,
        *,
        interval_seconds: float,
    ) -> None:
        self._sources = sources
        self._limits = limits
        self._progress = progress
        self._clock = clock
        self._interval = interval_seconds
        self._woken = threading.Event()
        self._lock = threading.Lock()
        self._trouble: _Trouble | None = None
        self._most_confirmed = Lsn(0)

    def sample(self) -> None:
        """Note how far the server's WAL is now, as the stream has heard: ages are then known to a second."""
        now, position = datetime.now(UTC), self._progress.get()
        if position.streaming and position.server_end:
            self._clock.heard(now, position.server_end)
        self._note_trouble(position, now)

    def look_soon(self) -> None:
        """Look at the next opportunity: something happened that changes the picture."""
        self._woken.set()

    def run(self, stop: StopSignal) -> None:
        """Look until ``stop`` is set."""
        began = time.monotonic()
        while not stop.is_set():
            self._round()
            early = time.monotonic() - began < _EARLY_SECONDS
            until = time.monotonic() + (min(_EARLY_INTERVAL, self._interval) if early else self._interval)
            while not stop.is_set() and not self._woken.is_set() and time.monotonic() < until:
                stop.wait(min(1.0, max(0.05, until - time.monotonic())))
            self._woken.clear()

    def _round(self) -> None:
        before = self._progress.get()
        facts = self._sources.look()
        now = datetime.now(UTC)
        facts = replace(
            facts,
            stream=self._stream(before, now),
            backups=self._sources.backups(),
            others=tuple(self._sources.others(facts.repository is not None)),
        )
        health = evaluate(facts, self._limits, now)
        _log.debug("health: %s, %s", health.verdict, ", ".join(f.key for f in health.findings) or "no findings")
        self._sources.publish(health, now)

    def _stream(self, before: WalPosition, now: datetime) -> StreamView:
        position = self._progress.get()
        trouble = self._note_trouble(position, now)
        return StreamView(
            position.streaming,
            trouble.problem if trouble else "",
            permanent=position.permanent and not position.streaming and bool(position.problem),
            since=trouble.since if trouble else None,
            confirmed=position.confirmed or None,
            timeline=before.timeline,
            stored=before.confirmed or None,
        )

    def _note_trouble(self, position: WalPosition, now: datetime) -> _Trouble | None:
        """What keeps WAL from being shipped. A session that begins is no end of it, one that gets on is: a store that
        takes nothing may let each begin, and end it seconds later."""
        with self._lock:
            if position.problem and not position.streaming:
                since = self._trouble.since if self._trouble else now
                self._trouble = _Trouble(position.problem, since)
            elif position.streaming:
                caught_up = 0 < position.server_end <= position.confirmed
                if caught_up or position.confirmed > self._most_confirmed:
                    self._trouble = None
            self._most_confirmed = max(self._most_confirmed, position.confirmed)
            return self._trouble
