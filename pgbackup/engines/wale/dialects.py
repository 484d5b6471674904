"""What differs between `wal-e` and `wal-g` on the command line. Facts: WAL-E 1.1.1's cmd.py, WAL-G 3.x's cmd/pg.

Whatever they do on the side is turned off: `wal-e wal-push` would upload other segments that it finds ready, both
prefetch from daemons of their own after a `wal-fetch`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pgbackup.errors import BackupError

TOOLS = ("wal-e", "wal-g")


@dataclass(frozen=True, slots=True)
class PushOptions:
    """A base backup: ``data_directory`` None for the replication protocol; ``max_rate`` in bytes per second."""

    data_directory: Path | None
    concurrency: int
    max_rate: int | None
    label: str = ""
    permanent: bool = False


class Dialect(Protocol):
    """Arguments for the tool, and what it can do."""

    name: str
    remote_backups: bool
    """It can take a base backup over the replication protocol."""
    programs: tuple[str, ...]
    """Other programs that it starts."""
    newest_major: int | None
    """The newest PostgreSQL that it can back up (None: no bound known)."""
    wal_extension: str | None
    """The extension of what it stores and reads (None: several)."""

    def version(self) -> list[str]: ...

    def backup_push(self, options: PushOptions) -> list[str]:
        """Raises BackupError for what the tool has no place for."""

    def backup_fetch(self, target: Path, backup: str, concurrency: int) -> list[str]: ...

    def wal_push(self, path: Path) -> list[str]: ...

    def wal_fetch(self, name: str, path: Path) -> list[str]: ...

    def delete_before(self, backup: str) -> list[str]:
        """Everything older than a backup, for real."""

    def environment(self) -> Mapping[str, str]:
        """Settings that turn off what the tool does on the side."""


class WalE:
    """WAL-E 1.1.1."""

    name: str = "wal-e"
    remote_backups: bool = False
    programs: tuple[str, ...] = ("lzop", "pv", "psql")
    newest_major: int | None = 14
    wal_extension: str | None = "lzo"

    def version(self) -> list[str]:
        return ["version"]

    def backup_push(self, options: PushOptions) -> list[str]:
        if options.permanent or options.label:
            what = "--permanent" if options.permanent else "--label"
            raise BackupError(
                f"wal-e has no place for {what}", hint=f"Leave {what} out, or take this backup with another engine."
            )
        if options.data_directory is None:
            raise BackupError("wal-e needs the server's data directory", hint=NO_DATA_HINT)
        rate = [] if options.max_rate is None else ["--cluster-read-rate-limit", str(options.max_rate)]
        return ["backup-push", "--pool-size", str(options.concurrency), *rate, str(options.data_directory)]

    def backup_fetch(self, target: Path, backup: str, concurrency: int) -> list[str]:
        return ["backup-fetch", "--pool-size", str(concurrency), str(target), backup]

    def wal_push(self, path: Path) -> list[str]:
        return ["wal-push", "--pool-size", "1", str(path)]

    def wal_fetch(self, name: str, path: Path) -> list[str]:
        return ["wal-fetch", "--prefetch", "0", name, str(path)]

    def delete_before(self, backup: str) -> list[str]:
        return ["delete", "--confirm", "before", backup]

    def environment(self) -> Mapping[str, str]:
        # Its own retries would go on for a hundred times; whoever calls tries again. To a syslog it would say nothing
        # to us.
        return {"WALE_LOG_DESTINATION": "stderr", "WALE_RETRIES": "5"}


class WalG:
    """WAL-G 3.x."""

    name: str = "wal-g"
    remote_backups: bool = True
    programs: tuple[str, ...] = ()
    newest_major: int | None = None
    wal_extension: str | None = None

    def version(self) -> list[str]:
        return ["--version"]

    def backup_push(self, options: PushOptions) -> list[str]:
        words = ["backup-push"]
        if options.data_directory is not None:
            words.append(str(options.data_directory))
        if options.permanent:
            words.append("--permanent")
        if options.label:
            words += ["--add-user-data", json.dumps({"label": options.label})]
        return words

    def backup_fetch(self, target: Path, backup: str, concurrency: int) -> list[str]:
        return ["backup-fetch", str(target), backup]

    def wal_push(self, path: Path) -> list[str]:
        return ["wal-push", str(path)]

    def wal_fetch(self, name: str, path: Path) -> list[str]:
        return ["wal-fetch", name, str(path)]

    def delete_before(self, backup: str) -> list[str]:
        return ["delete", "before", backup, "--confirm"]

    def environment(self) -> Mapping[str, str]:
        return {"WALG_PREVENT_WAL_OVERWRITE": "true", "TOTAL_BG_UPLOADED_LIMIT": "1"}


NO_DATA_HINT = (
    "Run pgbackup where the server's data directory is (a shared volume), say where with PGBACKUP_PGDATA, or use the "
    "native engine, which needs no access to it."
)


def dialect(name: str) -> Dialect:
    """The dialect of a tool by its name."""
    return WalE() if name == "wal-e" else WalG()
