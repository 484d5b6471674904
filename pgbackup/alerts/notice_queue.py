"""What waits for one channel: the newest notice of each key, and when it may be tried (again).

Pauses grow twice: for the channel, because it may be dead, up to a minute; and for each notice, because the receiver
may choke on that very one, up to ten minutes. A notice that failed a few times lets the others pass, so that it holds
nobody up. What nobody can have heard of is not told as resolved, and is told as opened when it grew worse meanwhile.

Not thread-safe; times are those of one monotonic clock, which the caller brings.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from pgbackup.core.alert_book import Notice, NoticeKind

FIRST_PAUSE_SECONDS = 1.0
CHANNEL_PAUSE_SECONDS = 60.0
NOTICE_PAUSE_SECONDS = 600.0
MOST_WAITING = 500
MOST_TRIES = 150
"""About a day; an alert that is still open comes again by itself as repeated."""
_TRIES_IN_A_ROW = 4


@dataclass(slots=True)
class Waiting:
    """A notice, and what is known of its delivery. ``unheard``: it opened, and no try was made to tell it."""

    notice: Notice
    unheard: bool
    tries: int = 0
    not_before: float = 0.0


class NoticeQueue:
    """The notices that wait for one channel, oldest first."""

    def __init__(self, first_pause: float = FIRST_PAUSE_SECONDS) -> None:
        self._first_pause = first_pause
        self._waiting: OrderedDict[str, Waiting] = OrderedDict()
        self._quiet_until = 0.0
        self._failures = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def notices(self) -> list[Notice]:
        """Everything that waits."""
        return [entry.notice for entry in self._waiting.values()]

    def put(self, notice: Notice) -> Notice | None:
        """Add a notice in place of the one of its key. Returns one that is dropped because too many wait."""
        key = notice.finding.key
        earlier = self._waiting.pop(key, None)
        unheard = earlier.unheard if earlier is not None else notice.kind is NoticeKind.OPENED
        if earlier is not None and unheard:
            if notice.kind is NoticeKind.RESOLVED:
                return None
            notice = replace(notice, kind=NoticeKind.OPENED)
        self._waiting[key] = Waiting(notice, unheard)
        return self._waiting.popitem(last=False)[1].notice if len(self._waiting) > MOST_WAITING else None

    def take(self, now: float, *, at_once: bool = False) -> Waiting | None:
        """The next to try, which leaves the queue; None when there is none yet. ``at_once``: no pause counts."""
        if not at_once and now < self._quiet_until:
            return None
        ready = [entry for entry in self._waiting.values() if at_once or entry.not_before <= now]
        if not ready:
            return None
        # min() keeps the order among equals.
        entry = min(ready, key=lambda each: each.tries // _TRIES_IN_A_ROW)
        return self._waiting.pop(entry.notice.finding.key)

    def seconds_to_wait(self, now: float) -> float | None:
        """Until ``take`` gives something; None when nothing waits."""
        if not self._waiting:
            return None
        first = min(entry.not_before for entry in self._waiting.values())
        return max(0.0, self._quiet_until - now, first - now)

    def delivered(self) -> None:
        """The channel works: no pause for the others."""
        self._failures = 0
        self._quiet_until = 0.0

    def put_back(self, entry: Waiting, now: float, *, asked: float | None = None, refused: bool = False) -> bool:
        """Try again later what could not be delivered, unless something newer waits. False: it was tried too often.

        ``asked``: so many seconds, the receiver said, nothing may come; believed up to ten minutes. ``refused``: asking
        again changes nothing; but people do, at the receiver or before it, so that is tried at the longest pause.
        """
        self._failures += 1
        asked_pause = min(asked or 0.0, NOTICE_PAUSE_SECONDS)
        self._quiet_until = now + max(self._pause(self._failures, CHANNEL_PAUSE_SECONDS), asked_pause)
        key = entry.notice.finding.key
        if key in self._waiting:
            return True
        tries = entry.tries + 1
        if tries >= MOST_TRIES:
            return False
        pause = NOTICE_PAUSE_SECONDS if refused else self._pause(tries, NOTICE_PAUSE_SECONDS)
        not_before = now + max(pause, asked_pause)
        # The receiver may have taken it although it failed: from now on it counts as heard.
        self._waiting[key] = Waiting(entry.notice, unheard=False, tries=tries, not_before=not_before)
        self._waiting.move_to_end(key, last=False)
        return True

    def _pause(self, failures: int, longest: float) -> float:
        return float(min(self._first_pause * 2 ** min(failures - 1, 20), longest))
