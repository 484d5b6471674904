"""The file ``backup_label`` of a base backup: where a server that starts on the copy begins its recovery.

Postgres writes it (build_backup_content in src/backend/access/transam/xlogbackup.c, xlog.c before 16), and believes it
more than the control file: with another backup's label it would leave out WAL, and say nothing.
"""

from __future__ import annotations

import re

from pgbackup.core.lsn import Lsn

BACKUP_LABEL = "backup_label"
MAX_LABEL_BYTES = 64 << 10
"""Real ones have some hundred bytes."""

_START = re.compile(rb"START WAL LOCATION: ([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8}) ")


def label_problem(data: bytes, start: Lsn) -> str:
    """Why this is not the label of a backup that began at ``start``, for people; empty when it is."""
    match = _START.match(data)
    if match is None:
        return "it does not say where recovery begins"
    found = Lsn(int(match[1], 16) << 32 | int(match[2], 16))
    return "" if found == start else f"it is of a backup that began at {found}, this one began at {start}"
