"""How fast something grows, from samples of the last minutes, and how long there is room for it at that rate.

Memory: the samples of a quarter of an hour, 900 at most.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

_SPAN = timedelta(minutes=15)
_MOST_SAMPLES = 900
_LONGEST_SECONDS = 366 * 86400


class GrowthSeries:
    """The samples of the last minutes."""

    def __init__(self) -> None:
        self._samples: deque[tuple[datetime, int]] = deque(maxlen=_MOST_SAMPLES)

    def add(self, moment: datetime, size_bytes: int) -> float:
        """Add a sample (``moment`` aware); returns the growth in bytes a second, 0 when it does not grow.

        From the lowest point of the span on: whatever is set back by what is removed grows anew from there.
        """
        if self._samples and moment < self._samples[-1][0]:
            self._samples.clear()
        self._samples.append((moment, size_bytes))
        while moment - self._samples[0][0] > _SPAN:
            self._samples.popleft()
        since, lowest = min(self._samples, key=lambda sample: sample[1])
        seconds = (moment - since).total_seconds()
        return max(0.0, (size_bytes - lowest) / seconds) if seconds > 0 else 0.0


def time_left(bytes_left: int | None, rate: float) -> timedelta | None:
    """How long there is room for so much; None when nothing is in sight, or the room is not known."""
    if bytes_left is None or rate <= 0 or bytes_left / rate > _LONGEST_SECONDS:
        return None
    return timedelta(seconds=max(0.0, bytes_left / rate))


def time_text(left: timedelta) -> str:
    """For people: ``41 min``, ``7 h``."""
    minutes = round(left.total_seconds() / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
