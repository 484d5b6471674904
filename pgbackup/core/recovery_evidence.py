"""What only a scan of the WAL can say about a recovery target, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pgbackup.core.lsn import Lsn


@dataclass(frozen=True, slots=True)
class StopRecord:
    """The WAL record at which recovery will stop; ``time`` is the server's clock where the record has one."""

    start: Lsn
    end: Lsn
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a scan of the WAL on the path found.

    ``stop``: the record that the target names (for a time: the first transaction that ended after it), None when the
    archive has no such record. ``others``: later ones of the same name. ``last_record`` is where the archive's last
    record begins, ``last_commit`` when the last transaction ended that was seen.
    """

    stop: StopRecord | None
    last_record: Lsn | None = None
    last_commit: datetime | None = None
    others: tuple[StopRecord, ...] = ()
