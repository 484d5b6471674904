"""WAL coverage for a base backup that stands alone: no `pgbackup run` is streaming.

A temporary slot is made before the backup starts, on a connection of its own, so the server keeps the WAL; then WAL is
streamed from the backup's start in whole segments, in a thread, until what makes the backup consistent is durable.
The persistent slot is not touched.
"""

from __future__ import annotations

import os
import threading

from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.engines.base import StopSignal
from pgbackup.engines.wal.bookkeeping import WalBookkeeping
from pgbackup.engines.wal.fence import Fence
from pgbackup.engines.wal.port import WalShipping
from pgbackup.engines.wal.progress import WalProgress
from pgbackup.engines.wal.resident_wal import ResidentWal
from pgbackup.engines.wal.session import WalSession
from pgbackup.engines.wal.session_begin import SessionBegin, WalSessionSettings, read_begin
from pgbackup.engines.wal.timelines import server_history, store_histories
from pgbackup.errors import BackupError, PgbackupError
from pgbackup.postgres.replication import ReplicationConnection
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec
from pgbackup.storage.base import ObjectStore

APPLICATION_NAME = "pgbackup-backup"
_STANDBY_FLUSH_SECONDS = 1.0
_STOP_SECONDS = 5.0


class OwnWal:
    """Implements the WAL coverage port of a base backup. Make it, ``prepare``, take the backup, ``close``."""

    def __init__(
        self, conninfo: str, store: ObjectStore, codec: Codec, shipping: WalShipping, *, writer: str, standby: bool
    ) -> None:
        self._conninfo = conninfo
        self._store = store
        self._codec = codec
        self._shipping = shipping
        self._writer = writer
        self._standby = standby
        self._progress = WalProgress()
        self._resident = ResidentWal(self._progress, store)
        self._stop = threading.Event()
        self._slot = f"pgbackup_backup_{os.getpid()}_{threading.get_ident() % 100000}"
        self._connection: ReplicationConnection | None = None
        self._session: WalSession | None = None
        self._thread: threading.Thread | None = None

    def prepare(self) -> None:
        """Make the temporary slot; from here on the server keeps its WAL."""
        connection = ReplicationConnection.connect(self._conninfo, application_name=APPLICATION_NAME)
        try:
            connection.create_slot(self._slot, temporary=True)
        except PgbackupError:
            connection.close()
            raise
        self._connection = connection

    def begin(self, timeline: int, start_lsn: Lsn, segment_bytes: int) -> None:
        """The backup starts at ``start_lsn``: stream from its segment on."""
        connection = self._connection
        if connection is None:
            raise BackupError("WAL streaming was not prepared")
        catalog = read_catalog(self._store, self._codec, with_marks=False, needs_bookkeeping=False)
        store_histories(self._shipping, catalog, connection, server_history(connection, timeline))
        first = SegmentName.containing(timeline, start_lsn, segment_bytes)
        if connection.start_streaming(first.start, timeline, self._slot) is not None:
            raise BackupError(f"timeline {timeline} ended before the backup began", hint="Start the backup again.")
        # Whoever streams already looks again at what is stored, before and beside ours. We are not fenced off in turn:
        # nothing is confirmed to a slot or to a commit here, and a `run` that starts now must not end the backup.
        Fence(self._store, timeline).put_up()
        session = self._session = WalSession(
            connection=connection,
            store=self._store,
            codec=self._codec,
            shipping=self._shipping,
            settings=WalSessionSettings(
                flush_seconds=_STANDBY_FLUSH_SECONDS if self._standby and self._shipping.ships_pieces else None,
                status_seconds=5.0,
                stop_seconds=_STOP_SECONDS,
            ),
            progress=self._progress,
            bookkeeping=WalBookkeeping(self._store, writer=self._writer, beyond=first.start),
        )
        begin = read_begin(self._store, first)
        self._thread = threading.Thread(target=self._run, args=(session, begin), name="backup-wal", daemon=True)
        self._thread.start()
        self._resident.wait_streaming(self._stop)
        self._resident.begin(timeline, start_lsn, segment_bytes)

    def _run(self, session: WalSession, begin: SessionBegin) -> None:
        try:
            if session.stream(begin, self._stop) is not None:
                raise BackupError("the server's timeline changed during the backup", hint="Start the backup again.")
        except PgbackupError as exc:
            self._progress.note_problem(exc, permanent=True)

    def wait_for(self, timeline: int, lsn: Lsn, segment_bytes: int, stop: StopSignal, *, tail_counts: bool) -> bool:
        """See ResidentWal.wait_for."""
        return self._resident.wait_for(timeline, lsn, segment_bytes, stop, tail_counts=tail_counts)

    def close(self) -> None:
        """Stop streaming and drop the temporary slot with its connection."""
        self._stop.set()
        if self._session is not None:
            self._session.wake()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS + 5)
        if self._connection is not None:
            self._connection.close()
