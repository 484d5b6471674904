"""One look at where a server stands, for health: its position, its timeline, its clock, and whether a standby is fed.

The timeline is the one that WAL is written or received on now, not that of the last checkpoint, which lags behind a
promotion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from pgbackup.core.lsn import Lsn
from pgbackup.postgres.session import Session

_LOOK = """
SELECT (SELECT system_identifier FROM pg_control_system()),
       pg_is_in_recovery(),
       CASE WHEN pg_is_in_recovery()
            THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                          (SELECT timeline_id FROM pg_control_checkpoint()))
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
       CASE WHEN pg_is_in_recovery()
            THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
            ELSE pg_current_wal_flush_lsn() END::text,
       clock_timestamp(),
       (SELECT extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::float8
          FROM pg_stat_wal_receiver WHERE status = 'streaming')
"""


@dataclass(frozen=True, slots=True)
class ServerLook:
    """``position``: the end of the server's durable WAL; ``clock`` aware UTC; ``silent_seconds``: how long a standby
    has heard nothing from its primary, infinite without a streaming WAL receiver, 0 for a primary."""

    system_identifier: int
    in_recovery: bool
    timeline: int
    position: Lsn
    clock: datetime
    silent_seconds: float


def look(session: Session) -> ServerLook:
    """Look once. Raises PostgresError or ConnectionLost."""
    identifier, in_recovery, timeline, position, clock, silent = session.query(_LOOK)[0]
    if not in_recovery:
        silent = 0.0
    return ServerLook(
        system_identifier=identifier % (1 << 64),
        in_recovery=in_recovery,
        timeline=timeline,
        position=Lsn.parse(position or "0/0"),
        clock=clock.astimezone(UTC),
        silent_seconds=math.inf if silent is None else float(silent),
    )
