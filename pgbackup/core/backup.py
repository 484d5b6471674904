"""One base backup, as a plain value: what its documents say of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from pgbackup.core.lsn import Lsn

CONTROL_FILE = "global/pg_control"
"""The file without which no server starts: a tar of its own in a backup, and the last file of a restore."""
OID = re.compile(r"[0-9]{1,10}")
"""A tablespace's number in documents and paths, which may hold anything; ten digits are enough for 32 bits."""


@dataclass(frozen=True, slots=True)
class Tablespace:
    """A tablespace of a backup: its OID and where it lay on the server."""

    oid: int
    location: str


@dataclass(frozen=True, slots=True)
class Backup:
    """One sealed base backup; times are aware UTC, sizes bytes; ``modified`` is the sentinel's age in the store."""

    name: str
    timeline: int
    start_lsn: Lsn
    stop_lsn: Lsn
    started: datetime
    finished: datetime
    modified: datetime
    system_identifier: int
    pg_version: int
    raw_bytes: int
    stored_bytes: int
    engine: str
    permanent: bool = False
    label: str = ""
    hostname: str = ""
    data_directory: str = ""
    tablespaces: tuple[Tablespace, ...] = ()
    wal_tail: bool = False
    corrupt_files: tuple[str, ...] = ()
    delta_of: str | None = None
    """The backup that it builds on; None for a full one."""

    delta_lsn: Lsn | None = None
    """Where that backup began; None: not known."""

    data_bytes: int = 0
    """The size of the data directory, where it is another than ``raw_bytes``: a delta's. 0: not known."""

    problem: str = ""
    """Why it cannot be restored as the documents show it (empty: nothing found)."""

    needs: str = ""
    """What to do when the ``problem`` is ours, not the backup's: it may be whole, and must not go as a broken one."""

    @property
    def pg_major(self) -> int:
        return self.pg_version // 10000
