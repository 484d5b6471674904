"""Where a recovery shall end: the target as the operator names it, and as Postgres is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pgbackup.core.lsn import Lsn

TargetKind = Literal["latest", "immediate", "time", "lsn", "xid", "name"]
TargetAction = Literal["promote", "pause", "shutdown"]

MAX_NAME_BYTES = 63
"""Postgres: MAXFNAMELEN - 1, the longest name of a restore point."""


@dataclass(frozen=True, slots=True)
class Target:
    """One target; the field of its kind is set and no other. Raises ValueError for anything that cannot be one.

    ``exclusive``: stop before the transaction, record or moment instead of after it (time, lsn and xid only).
    ``xid`` is cut to the 32 bits that WAL knows, so that a ``pg_current_xact_id()`` may be given as it is.
    """

    kind: TargetKind = "latest"
    time: datetime | None = None
    lsn: Lsn | None = None
    xid: int | None = None
    name: str | None = None
    exclusive: bool = False
    action: TargetAction = "promote"

    def __post_init__(self) -> None:
        fields = {"time": self.time, "lsn": self.lsn, "xid": self.xid, "name": self.name}
        given = [kind for kind, value in fields.items() if value is not None]
        if given != ([self.kind] if self.kind in fields else []):
            raise ValueError(f"a target of kind {self.kind} with {', '.join(given) or 'nothing'}")
        if self.time is not None and self.time.tzinfo is None:
            raise ValueError(f"the time {self.time} has no time zone")
        if self.exclusive and self.kind not in ("time", "lsn", "xid"):
            raise ValueError("exclusive is for a time, an LSN or a transaction; this target cannot be exclusive")
        if self.name is not None and (
            not 0 < len(self.name.encode("utf-8", "surrogateescape")) <= MAX_NAME_BYTES or "\n" in self.name
        ):
            raise ValueError(f"a restore point's name is one line of 1 to {MAX_NAME_BYTES} bytes")
        if self.xid is not None:
            if not 0 < self.xid < 1 << 64:
                raise ValueError(f"not a transaction id: {self.xid}")
            object.__setattr__(self, "xid", self.xid & 0xFFFFFFFF)

    @property
    def value(self) -> str:
        """The value as Postgres takes it; empty for ``latest``."""
        if self.time is not None:
            return time_text(self.time)
        if self.kind == "immediate":
            return "immediate"
        return str(next((v for v in (self.lsn, self.xid, self.name) if v is not None), ""))

    def __str__(self) -> str:
        if self.kind == "latest":
            return "the end of the archive"
        if self.kind == "immediate":
            return "the end of the backup"
        words = {"time": "", "lsn": "LSN ", "xid": "transaction ", "name": "restore point "}
        return f"{words[self.kind]}{self.value}{' (exclusive)' if self.exclusive else ''}"


def time_text(moment: datetime) -> str:
    """A moment in UTC as Postgres and people read it: ``2026-01-02 03:04:05.678901+00``."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ") + "+00"
