"""Which process is making a backup, and whether it is still there.

A process that was killed leaves its intent behind. On its own machine the next one sees at once that it is gone:
process ids with their start times do not come again. Elsewhere only the age of the heartbeat tells.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_ACTIVE: set[str] = set()
"""The backups that this process is making."""


@dataclass(frozen=True, slots=True)
class Owner:
    """One backup attempt of one process. ``boot`` and ``namespace`` say on which machine and in which container its
    ``pid`` means something; ``started`` is its start in clock ticks since the boot."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: int
    attempt: str

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Owner:
        """Raises ValueError, TypeError or KeyError for anything else."""
        return cls(
            host=str(fields["host"]),
            boot=str(fields["boot"]),
            namespace=str(fields["namespace"]),
            pid=int(fields["pid"]),
            started=int(fields["started"]),
            attempt=str(fields["attempt"]),
        )

    @classmethod
    def new(cls, host: str) -> Owner:
        """This process, for a new attempt; ``retire`` it when the attempt has ended."""
        owner = cls(host, _boot(), _namespace(), os.getpid(), _started(os.getpid()) or 0, uuid.uuid4().hex)
        _ACTIVE.add(owner.attempt)
        return owner

    def retire(self) -> None:
        _ACTIVE.discard(self.attempt)

    def is_gone(self) -> bool | None:
        """True when the attempt has certainly ended, False when it certainly runs, None when nobody here can say."""
        if not self.boot or (self.boot, self.namespace) != (_boot(), _namespace()):
            return None
        if self.pid == os.getpid() and self.started == (_started(self.pid) or 0):
            return self.attempt not in _ACTIVE
        return _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """The start time of a process (proc(5), field 22 of stat), or None when there is none of that id."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name, in parentheses, may hold anything.
    fields = text.rpartition(")")[2].split()
    return int(fields[19]) if fields[0] != "Z" else None
