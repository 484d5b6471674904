"""Counts what is logged again and again, instead of showing it: a store that is down for a night fills no disk."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Hashable

from pgbackup import count_text

REPEAT_SECONDS = 60.0
BURST = 10
INFO_BURST = 30
_MOST_REMEMBERED = 1000


class Repeats:
    """Lets an event through once per interval and counts the rest; the count is added to the next one shown.

    Events are the same when logger, level, text and exception are. Texts that differ in their arguments only, the tenth
    failure and the eleventh, are let through ``BURST`` times per interval together. CRITICAL is always let through, and
    DEBUG, which somebody asked for.
    """

    def __init__(self, interval: float = REPEAT_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()
        self._shown: dict[Hashable, _Shown] = {}

    def admit(self, record: logging.LogRecord) -> logging.LogRecord | None:
        """What to write for this event: itself, itself with a count, or nothing."""
        if record.levelno >= logging.CRITICAL or record.levelno <= logging.DEBUG:
            return record
        given = str(getattr(record, "repeat_key", ""))
        template = (record.name, record.levelno, str(record.msg), given)
        with self._lock:
            if given:
                return self._count(template, record, most=1)
            if record.levelno < logging.WARNING:
                return self._count(template, record, most=INFO_BURST)
            kind = record.exc_info[0] if record.exc_info else None
            once = self._count((*template, record.getMessage(), kind), record, most=1)
            return None if once is None else self._count(template, once, most=BURST)

    def _count(self, key: Hashable, record: logging.LogRecord, *, most: int) -> logging.LogRecord | None:
        now = self._clock()
        seen = self._shown.get(key)
        if seen is None or now - seen.since >= self._interval:
            self._shown[key] = _Shown(now)
            return seen.counted(record, now) if seen is not None else record
        if seen.shown < most:
            seen.shown += 1
            return record
        seen.suppressed += 1
        seen.last = record
        return None

    def ended(self, *, everything: bool = False) -> list[logging.LogRecord]:
        """The last of each suppressed event that did not come again in its interval, with its count."""
        now = self._clock()
        with self._lock:
            everything = everything or len(self._shown) > _MOST_REMEMBERED
            over = [key for key, seen in self._shown.items() if everything or now - seen.since >= self._interval]
            ended = [self._shown.pop(key) for key in over]
        return [seen.counted(seen.last, now) for seen in ended if seen.last is not None]


class _Shown:
    """How often one event was shown and suppressed since ``since``. Holds no exception, whose frames hold much else."""

    __slots__ = ("_last", "shown", "since", "suppressed")

    def __init__(self, since: float) -> None:
        self.since = since
        self.shown = 1
        self.suppressed = 0
        self._last: logging.LogRecord | None = None

    @property
    def last(self) -> logging.LogRecord | None:
        """The last that was suppressed."""
        return self._last

    @last.setter
    def last(self, record: logging.LogRecord) -> None:
        self._last = copy.copy(record)
        self._last.msg, self._last.args = record.getMessage(), None
        self._last.exc_info = self._last.exc_text = None

    def counted(self, record: logging.LogRecord, now: float) -> logging.LogRecord:
        """The record with the count behind its text."""
        if not self.suppressed:
            return record
        counted = copy.copy(record)
        times = f"repeated {count_text.counted(self.suppressed, 'time')} in {_duration(now - self.since)}"
        counted.msg, counted.args = f"{record.getMessage()} ({times})", None
        return counted


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
