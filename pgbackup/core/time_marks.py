"""What time marks prove although the server's clock may have been wrong for a while.

WAL only goes forward, so marks have an order of their own: that of their positions. A clock that was ahead, or behind,
for some minutes leaves a few marks that do not fit into the row of the others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime

from pgbackup.core.catalog import TimeMark
from pgbackup.core.lsn import Lsn


def by_position(marks: Sequence[TimeMark]) -> list[TimeMark]:
    """The marks in order of their positions."""
    return sorted(marks, key=lambda mark: (mark.lsn, mark.moment))


def fitting(marks: Sequence[TimeMark]) -> list[TimeMark]:
    """The longest row of marks (given by position) in which time goes on: those of a wrong clock are not in it.

    Patience sorting: ``ends[n]`` is the earliest moment with which a row of n + 1 marks can end.
    """
    ends: list[datetime] = []
    last: list[int] = []
    before: list[int] = []
    for number, mark in enumerate(marks):
        length = bisect_right(ends, mark.moment)
        before.append(last[length - 1] if length else -1)
        if length == len(ends):
            ends.append(mark.moment)
            last.append(number)
        else:
            ends[length], last[length] = mark.moment, number
    row: list[TimeMark] = []
    number = last[-1] if last else -1
    while number >= 0:
        row.append(marks[number])
        number = before[number]
    return row[::-1]


def ended_early_at(marks: Sequence[TimeMark], since: Lsn, moment: datetime) -> tuple[TimeMark, TimeMark] | None:
    """Where a recovery to ``moment`` that begins at ``since`` would end too early, as marks (by position) show.

    Recovery ends at the first commit that is later than the moment. With a clock that was ahead for a while such a
    commit may lie before others that are earlier: returned are a mark of that while, and the newest one that proves
    WAL before the moment behind it.
    """
    right = set(fitting(marks))
    ahead = next((m for m in marks if m.lsn >= since and m.moment > moment), None)
    if ahead is None or ahead in right:
        return None
    behind = [m for m in marks if m in right and m.lsn > ahead.lsn and m.moment <= moment]
    return (ahead, behind[-1]) if behind else None
