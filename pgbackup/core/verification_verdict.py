"""What the record of verifications says after one more backup was read. A pure function: whoever writes it down passes
what is recorded, and asks again if that has changed by then.

The verdict is that of the newest backup. Beside it stand those that were found damaged, and are still there: that
another one is whole says nothing of them. Two verifications may run at once, for hours, and in no order: so damage is
always recorded, and what another one has recorded since ours began is not taken back, for we may have read before it.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from dataclasses import dataclass, replace
from datetime import datetime

from pgbackup.core.health_facts import LastRun


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading all of a backup and its WAL; ``is_newest`` of those that were there when it ``began``."""

    backup: str
    ok: bool
    summary: str
    began: datetime
    is_newest: bool


def with_reading(
    reading: Reading, known: LastRun | None, stored: LastRun | None, there: Container[str], now: datetime
) -> LastRun | None:
    """The record with one more reading.

    ``known`` was recorded when it began, ``stored`` is by now; ``there``: the backups that were there when it began.
    None when there is nothing to record: an older backup, and no verdict of the newest that it could stand beside.
    """
    meanwhile = stored != known
    damaged = {name: found for name, found in (stored.damaged if stored else {}).items() if meanwhile or name in there}
    whole = {name: began for name, began in (stored.whole if stored else {}).items() if meanwhile or name in there}
    if not reading.ok or not meanwhile:
        damaged.pop(reading.backup, None)
    if not reading.ok:
        damaged[reading.backup] = now
    is_whole = reading.backup not in damaged
    if is_whole:
        whole[reading.backup] = reading.began
    else:
        whole.pop(reading.backup, None)
    is_verdict = reading.is_newest and (not reading.ok or (is_whole and _is_same_verdict(known, stored)))
    if is_verdict:
        return LastRun(now, reading.ok, reading.summary, damaged, reading.began, whole)
    return None if stored is None else replace(stored, damaged=damaged, whole=whole)


def still_damaged(run: LastRun | None, remembered: Collection[str]) -> frozenset[str]:
    """The backups that count as damaged for whoever removes others: those of the record, and those that an earlier one
    named, until a reading has found them whole. For a record can be lost, and one that is written anew says nothing of
    what it does not name."""
    if run is None:
        return frozenset(remembered)
    return frozenset(run.damaged) | (frozenset(remembered) - frozenset(run.whole))


def _is_same_verdict(known: LastRun | None, stored: LastRun | None) -> bool:
    if known is None or stored is None:
        return stored is None
    return (stored.finished, stored.began, stored.ok) == (known.finished, known.began, known.ok)
