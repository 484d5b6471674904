"""Keeps WAL streaming: one session after the other, for as long as the process runs.

Each session begins from the bucket: read what is stored, connect, see that server and prefix belong together, choose
the start, stream. Whatever ends a session, the next begins the same way, so every restart is the tested path.

The store is asked first and the replication connection made last: while the store is down nothing is connected, so
Postgres can stop, and its slot keeps the WAL.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

from pgbackup.core.branches import branch_problems
from pgbackup.core.catalog import Catalog, Gap
from pgbackup.core.known_gaps import KnownGap
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.stream_start import StreamStart, plan_stream_start, with_comparison
from pgbackup.core.timeline import TimelineHistory
from pgbackup.engines.base import StopSignal
from pgbackup.engines.presence.lease import Lease
from pgbackup.engines.wal.adoption import check_adoption
from pgbackup.engines.wal.bookkeeping import WalBookkeeping
from pgbackup.engines.wal.fence import Fence, Superseded
from pgbackup.engines.wal.pieces import PiecesChanged, compare_with_whole
from pgbackup.engines.wal.port import WalShipping
from pgbackup.engines.wal.progress import WalProgress
from pgbackup.engines.wal.session import WalSession
from pgbackup.engines.wal.session_begin import WalSessionSettings, read_begin
from pgbackup.engines.wal.shipping import NativeShipping
from pgbackup.engines.wal.stream_backoff import StreamBackoff
from pgbackup.engines.wal.stream_pause import StreamPause
from pgbackup.engines.wal.timelines import TimelineClaim, server_history, store_histories, truncated
from pgbackup.errors import ObjectMissing, PgbackupError, PostgresError, SlotBusy, WalGone
from pgbackup.postgres.replication import ReplicationConnection, TimelineEnd
from pgbackup.postgres.restored_directory import tidy_restored_directory
from pgbackup.postgres.session import ServerFacts, Session
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import claim_prefix, read_catalog
from pgbackup.repository.codec import Codec, is_readable
from pgbackup.repository.documents import ClusterDocument
from pgbackup.repository.gap_ledger import record_gap
from pgbackup.repository.wal_objects import stored_keys
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.tidying import tidy

_SLOT_GRACE_SECONDS = 30.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReceiverOptions:
    """``flush_seconds``: between pieces of the open segment, None: no pieces. ``writer`` names this process, ``host``
    this host."""

    conninfo: str
    application_name: str
    slot: str
    flush_seconds: float | None
    stop_seconds: float
    concurrency: int
    writer: str
    host: str
    adopt: bool = False


class WalReceiver:
    """Runs in a thread of its own; ``progress`` shows what it does."""

    def __init__(
        self,
        options: ReceiverOptions,
        store: ObjectStore,
        codec: Codec,
        progress: WalProgress,
        lease: Lease,
        *,
        shipping: WalShipping | None = None,
        on_gap: Callable[[], None] = lambda: None,
    ) -> None:
        """``shipping``: how WAL is stored (None: we do)."""
        self._options = options
        self._store = store
        self._codec = codec
        self._shipping = shipping or NativeShipping(store, codec, concurrency=options.concurrency)
        self._progress = progress
        self._lease = lease
        self._on_gap = on_gap
        self._slot_state = "there"
        self._backoff = StreamBackoff()
        self._slot_busy_since: float | None = None
        self._pause = StreamPause()

    def let_go(self) -> AbstractContextManager[None]:
        """While the block runs nothing streams, and the slot is free; what was received is made durable first.

        Raises SlotBusy when the stream does not end within the time to stop.
        """
        return self._pause.hold(self._options.stop_seconds + 2.0)

    def run(self, stop: StopSignal) -> None:
        """Stream until ``stop`` is set. Errors are logged and tried again; those that only the operator can mend are
        shown as permanent in ``progress`` and tried less and less, down to once a minute."""
        while not stop.is_set():
            try:
                with self._pause.session(stop) as session_stop:
                    self._session(session_stop)
                self._forget_failures()
            except (PiecesChanged, Superseded) as exc:
                _log.warning("receiving the open segment again: %s", exc)
                # Not in step with another one, for whom the same holds.
                stop.wait(random.uniform(0.7, 1.3))  # noqa: S311 - jitter
            except PgbackupError as exc:
                self._wait_after(exc, stop)

    def _forget_failures(self) -> None:
        self._backoff.forget()
        self._slot_busy_since = None

    def _wait_after(self, exc: PgbackupError, stop: StopSignal) -> None:
        if self._backoff.got_on(self._progress.get()):
            self._forget_failures()
        self._progress.note_problem(exc, permanent=not exc.retryable)
        if isinstance(exc, SlotBusy) and self._is_grace_period():
            stop.wait(1.0)
            return
        text = exc.with_hint()
        if exc.retryable:
            _log.warning("WAL streaming interrupted, trying again: %s", text)
        else:
            _log.error("WAL streaming stands: %s", text)
        self._sleep(self._backoff.pause(permanent=not exc.retryable), stop)

    def _sleep(self, seconds: float, stop: StopSignal) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not stop.wait(min(1.0, seconds)):
            self._progress.beat()

    def _is_grace_period(self) -> bool:
        """A slot stays active until the server notices that its old connection is dead."""
        if self._slot_busy_since is None:
            self._slot_busy_since = time.monotonic()
        return time.monotonic() - self._slot_busy_since < self._sender_timeout + _SLOT_GRACE_SECONDS

    _sender_timeout = 60.0

    # -- one session ----------------------------------------------------------------------------------------------

    def _session(self, stop: StopSignal) -> None:
        self._progress.beat()
        catalog = read_catalog(self._store, self._codec, with_marks=False, needs_bookkeeping=False)
        with Session.connect(self._options.conninfo, application_name=self._options.application_name) as session:
            facts = session.facts()
            self._sender_timeout = facts.wal_sender_timeout_seconds or 60.0
            claim_prefix(
                self._store,
                ClusterDocument(facts.system_identifier, facts.segment_bytes, facts.version_num),
                self._codec,
            )
            slot = session.slot(self._options.slot)
            self._slot_state = "missing" if slot is None else slot.wal_status or "there"
            if slot is not None and slot.wal_status == "lost" and not slot.active:
                _log.error("slot %s is lost: making it again", self._options.slot)
                session.drop_slot(self._options.slot)
                slot = None
            if slot is None:
                session.create_slot(self._options.slot)
                _log.info("created replication slot %s", self._options.slot)
                slot = session.slot(self._options.slot)
        tidy_restored_directory(facts)
        if catalog.segment_bytes != facts.segment_bytes:
            catalog = read_catalog(self._store, self._codec, with_marks=False, needs_bookkeeping=False)
        self._remove_leftover_pieces(catalog)
        self._stream_from(catalog, facts, slot.restart_lsn if slot else None, stop)

    def _stream_from(self, catalog: Catalog, facts: ServerFacts, restart_lsn: Lsn | None, stop: StopSignal) -> None:
        connection = self._connect()
        try:
            identity = connection.identify()
            history = server_history(connection, identity.timeline)
            check_adoption(
                self._lease, catalog, history, self._options.host, facts.restore_command, adopt=self._options.adopt
            )
            store_histories(self._shipping, catalog, connection, history)
            for problem in branch_problems(catalog, history, identity.flush_lsn):
                _log.log(logging.WARNING if problem.chosen else logging.ERROR, "%s", problem.text)
            self._lease.acquire(facts.system_identifier, identity.timeline)
            starts = plan_stream_start(
                catalog, history, restart_lsn, facts.redo_lsn, pieces=self._flush_seconds is not None
            )
            starts = with_comparison(starts, catalog)
        finally:
            connection.close()
        self._try_starts(starts, facts, history, stop)

    def _try_starts(
        self,
        starts: list[StreamStart],
        facts: ServerFacts,
        history: TimelineHistory,
        stop: StopSignal,
    ) -> None:
        """Stream from the first place that the server still has; every later one leaves a gap."""
        for index, start in enumerate(starts):
            try:
                self._stream(start, facts, history, stop)
                return
            except WalGone:
                position = self._progress.get()
                if (position.began == start.lsn and position.received > start.lsn) or index == len(starts) - 1:
                    raise
                needed = bool(starts[index + 1].gaps)
                _log.log(logging.WARNING if needed else logging.INFO, "the server no longer has WAL from %s", start.lsn)

    def _stream(self, start: StreamStart, facts: ServerFacts, history: TimelineHistory, stop: StopSignal) -> None:
        connection = self._connect()
        try:
            end = connection.start_streaming(start.lsn, start.timeline, self._options.slot)
            if end is not None:
                raise PostgresError(f"timeline {start.timeline} ended at {end.switch_lsn}, before {start.lsn}")
            first = SegmentName.containing(start.timeline, start.lsn, facts.segment_bytes)
            _log.info("streaming WAL of timeline %d from %s", start.timeline, start.lsn)
            self._record_gaps(start.gaps)
            session = WalSession(
                connection=connection,
                store=self._store,
                codec=self._codec,
                shipping=self._shipping,
                settings=self._session_settings(facts),
                progress=self._progress,
                bookkeeping=self._bookkeeping(facts),
            )
            claim = self._claim(truncated(history, start.timeline), facts)
            fence = Fence(self._store, start.timeline)
            fence.put_up()
            historic = start.timeline != history.timeline
            begin = read_begin(self._store, first, claim, before_confirming=fence.check, historic=historic)
            end = session.stream(begin, stop)
            if isinstance(end, TimelineEnd):
                _log.info("timeline %d ended at %s; next is %d", start.timeline, end.switch_lsn, end.next_timeline)
        finally:
            connection.close()

    def _record_gaps(self, gaps: Sequence[Gap]) -> None:
        """Nothing that comes after a gap can be recovered before the next base backup: it is recorded first."""
        reason = f"the server had removed it before it was shipped; slot {self._options.slot} was {self._slot_state}"
        now = datetime.now(UTC)
        new = [gap for gap in gaps if record_gap(self._store, KnownGap(gap.timeline, gap.start, gap.end, now, reason))]
        for gap in new:
            _log.error("WAL from %s to %s is lost: recorded the gap, a base backup is needed", gap.start, gap.end)
        if new:
            self._on_gap()

    def _connect(self) -> ReplicationConnection:
        return ReplicationConnection.connect(self._options.conninfo, application_name=self._options.application_name)

    @property
    def _flush_seconds(self) -> float | None:
        return self._options.flush_seconds if self._shipping.ships_pieces else None

    def _session_settings(self, facts: ServerFacts) -> WalSessionSettings:
        timeout = facts.wal_sender_timeout_seconds
        return WalSessionSettings(
            flush_seconds=self._flush_seconds,
            status_seconds=min(10.0, timeout / 3) if timeout else 10.0,
            stop_seconds=self._options.stop_seconds,
        )

    def _bookkeeping(self, facts: ServerFacts) -> WalBookkeeping:
        def renew(timeline: int) -> None:
            self._lease.acquire(facts.system_identifier, timeline)

        def leads() -> bool:
            stored = self._lease.read()
            return stored is not None and self._lease.is_ours(stored[0])

        return WalBookkeeping(self._store, writer=self._options.writer, on_note=renew, leads=leads)

    def _claim(self, history: TimelineHistory, facts: ServerFacts) -> TimelineClaim | None:
        if history.timeline == 1:
            return None
        return TimelineClaim(self._store, history, facts.segment_bytes, writer=self._options.writer)

    def _remove_leftover_pieces(self, catalog: Catalog) -> None:
        """Pieces of segments that are stored whole: a crash came between the two. Compared, then removed."""
        for segment in catalog.tails:
            if not catalog.has(segment):
                continue
            whole = next(iter(stored_keys(self._store, str(segment))), None)
            names = [n for i in self._store.list(keys.pieces_folder(str(segment))) if (n := keys.parse_piece(i.key))]
            if whole is None or not names or not is_readable(keys.split_extension(whole)[1]):
                continue
            try:
                compare_with_whole(self._store, self._codec, whole, names)
            except ObjectMissing:
                # Another process removes them, and has compared what it removes.
                continue
            if not tidy(self._store, [name.key for name in names]):
                # It keeps all of them then: comparing each with its segment would read the whole archive.
                return
