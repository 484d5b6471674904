"""One look at who keeps WAL in pg_wal besides our slot; needs pg_monitor only."""

from __future__ import annotations

from pgbackup.core.pg_wal import OtherSlot, PgWalSample
from pgbackup.core.slot_forecast import SlotSample
from pgbackup.postgres.session import Session

_MOST_SLOTS = 20
_SIZES = """
SELECT (SELECT setting::bigint << 20 FROM pg_settings WHERE name = 'wal_keep_size'),
       (SELECT setting::bigint << 20 FROM pg_settings WHERE name = 'max_wal_size'),
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'),
       current_setting('archive_mode') <> 'off',
       current_setting('archive_command') = '' AND coalesce(current_setting('archive_library', true), '') = ''
"""
_SLOTS = """
SELECT slot_name::text, active, pg_wal_lsn_diff(here.lsn, restart_lsn)::bigint
  FROM pg_replication_slots,
       (SELECT CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                    ELSE pg_current_wal_lsn() END AS lsn) AS here
 WHERE slot_name <> %s AND restart_lsn IS NOT NULL ORDER BY restart_lsn LIMIT %s
"""
_ARCHIVER = """
SELECT (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
       CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity') THEN last_failed_wal ELSE '' END
  FROM pg_stat_archiver
"""


def look_at_pg_wal(session: Session, slot: str, sample: SlotSample) -> PgWalSample:
    """Look once; ``sample`` is what was just seen of our ``slot``. Raises PostgresError or ConnectionLost."""
    keep, most, segment, archives, without = session.query(_SIZES)[0]
    slots = session.query(_SLOTS, (slot, _MOST_SLOTS))
    waiting, failed = session.query(_ARCHIVER)[0] if archives else (None, "")
    return PgWalSample(
        moment=sample.moment,
        wal_bytes=sample.wal_bytes or 0,
        free_bytes=sample.free_bytes,
        own_bytes=sample.retained_bytes,
        slots=tuple(OtherSlot(name, active, max(0, held)) for name, active, held in slots),
        keep_bytes=keep,
        max_bytes=most,
        waiting_bytes=None if waiting is None else waiting * segment,
        failed_wal=failed or "",
        without_command=archives and without,
    )
