"""Progress of long work: a bar with rate and time left on a terminal, one log line every ten seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pgbackup.cli.output import duration_text
from pgbackup.core.size_text import size_text
from pgbackup.engines.base import ProgressSink
from pgbackup.logs import log_fields
from pgbackup.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LOG_SECONDS = 10.0
_log = logging.getLogger(__name__)


def open_progress() -> ProgressSink:
    """The sink that fits where stderr goes."""
    return TerminalProgress() if sys.stderr.isatty() else LoggedProgress()


class LoggedProgress:
    """A ProgressSink that logs. Thread-safe; it has no thread of its own: work that stands still says nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._what = ""
        self._total: int | None = None
        self._done = 0
        self._began = self._logged = 0.0

    def start(self, what: str, total_bytes: int | None) -> None:
        with self._lock:
            self._what, self._total, self._done = what, total_bytes, 0
            self._began = self._logged = self._clock()

    def advance(self, done_bytes: int) -> None:
        with self._lock:
            self._done += done_bytes
            now = self._clock()
            if now - self._logged < LOG_SECONDS:
                return
            self._logged = now
            text, seconds = self._describe(now), now - self._began
        _log.info("%s", text, extra=log_fields(seconds=round(seconds, 1)))

    def finish(self) -> None:
        with self._lock:
            if not self._done:
                return
            text, seconds = self._describe(self._clock(), ended=True), self._clock() - self._began
        _log.info("%s", text, extra=log_fields(seconds=round(seconds, 1)))

    def _describe(self, now: float, *, ended: bool = False) -> str:
        seconds = max(now - self._began, 0.001)
        rate = self._done / seconds
        text = f"{self._what}: {size_text(self._done)}"
        if ended:
            return f"{text} at {size_text(round(rate))}/s, ended"
        if self._total and self._done < self._total:
            text += f" of about {size_text(self._total)}, {100 * self._done / self._total:.0f}%"
            if rate:
                text += f", about {duration_text((self._total - self._done) / rate)} left"
        return f"{text} at {size_text(round(rate))}/s"


class TerminalProgress:
    """A ProgressSink that draws a bar below the log lines."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def start(self, what: str, total_bytes: int | None) -> None:
        self.finish()
        progress = _new_bar()
        self._task = progress.add_task(printable(what), total=total_bytes)
        progress.start()
        self._progress = progress

    def advance(self, done_bytes: int) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, done_bytes)

    def finish(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _new_bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        redirect_stdout=False,
    )
