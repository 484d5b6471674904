"""The demo's plain account of what happens: one line an event, with the seconds since the beginning."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


class Account:
    """Tells what happens through ``write``, which gets whole lines."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._begin = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begin

    def title(self, text: str) -> None:
        self._write("")
        self._write(text)

    def tell(self, text: str) -> None:
        """Something happened."""
        self._write(f"{self.seconds:6.1f} s  {text}")

    def detail(self, text: str) -> None:
        """More about the line before."""
        for line in text.splitlines():
            self._write(f"          {line}")

    @contextmanager
    def timed(self, text: str) -> Iterator[None]:
        """Tell a step when it has succeeded, and how long it took."""
        begin = time.monotonic()
        yield
        self.tell(f"{text} ({time.monotonic() - begin:.1f} s)")


def clock_text(moment: datetime) -> str:
    """A moment as people read it: the time of day in UTC."""
    return moment.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3] + " UTC"
