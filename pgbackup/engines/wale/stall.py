"""A tool that works long is let work as long as it does something; one that stands still is ended."""

from __future__ import annotations

import time
from collections.abc import Callable

from pgbackup.errors import PgbackupError

STALLED_SECONDS = 3600.0
LOOK_SECONDS = 5.0


class StallWatch:
    """``look`` is what ``run_program`` watches by. ``seen`` is asked now and then for anything that differs when the
    tool has got on; ``failure`` makes the error of one that has not, from how that is put."""

    def __init__(
        self, seen: Callable[[], object], failure: Callable[[str], PgbackupError], *, look_seconds: float | None = None
    ) -> None:
        self._seen = seen
        self._failure = failure
        self._look_seconds = look_seconds or LOOK_SECONDS
        self._next = 0.0
        self._sign: object = None
        self._since = time.monotonic()

    def look(self, active: int) -> None:
        """Called often, with a number that grows with what the tool prints. Raises the failure."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._look_seconds
        sign = (active, self._seen())
        if sign != self._sign:
            self._sign, self._since = sign, now
        elif now - self._since > STALLED_SECONDS:
            raise self._failure(f"stood still for {round(STALLED_SECONDS / 60)} min, and was ended")
