"""One look at the slot and at what it costs the server; needs REPLICATION and pg_monitor only."""

from __future__ import annotations

import os
from datetime import UTC
from pathlib import Path

from pgbackup.core.slot_forecast import SlotSample
from pgbackup.errors import PgbackupError
from pgbackup.postgres.pg_control import read_control_file
from pgbackup.postgres.session import Session

_LOOK = """
SELECT s.slot_name IS NOT NULL, coalesce(s.active, false), coalesce(s.wal_status, ''),
       coalesce(pg_wal_lsn_diff(here.lsn, s.restart_lsn), 0)::bigint, s.safe_wal_size,
       (SELECT coalesce(sum(size), 0)::bigint FROM pg_ls_waldir()),
       (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
       clock_timestamp(), coalesce(current_setting('data_directory', true), ''),
       (SELECT system_identifier FROM pg_control_system())
  FROM (SELECT CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                    ELSE pg_current_wal_lsn() END AS lsn) AS here
  LEFT JOIN pg_replication_slots s ON s.slot_name = %s
"""


def look_at_slot(session: Session, slot: str) -> SlotSample:
    """Look once. Raises PostgresError or ConnectionLost."""
    exists, active, status, retained, safe, wal, limit_mb, clock, directory, identifier = session.query(_LOOK, (slot,))[
        0
    ]
    return SlotSample(
        moment=clock.astimezone(UTC),
        exists=exists,
        active=active,
        wal_status=status,
        retained_bytes=max(0, retained),
        safe_bytes=safe,
        wal_bytes=wal,
        free_bytes=_free_bytes(Path(directory), identifier % (1 << 64)) if directory else None,
        limit_bytes=limit_mb << 20 if limit_mb is not None and limit_mb >= 0 else None,
    )


def _free_bytes(directory: Path, system_identifier: int) -> int | None:
    """Free space where the server keeps its WAL; None when that directory is not certainly this server's."""
    try:
        if read_control_file(directory).system_identifier != system_identifier:
            return None
        found = os.statvfs(directory / "pg_wal")
    except (OSError, PgbackupError):
        return None
    return found.f_bavail * found.f_frsize
