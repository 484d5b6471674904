"""One streaming session on one timeline: receive, hand to the uploads, confirm what is durable.

The thread that runs ``stream`` owns the connection, the open segment and the acks; the uploads report back through a
queue that wakes its ``select``. A session ends with the timeline (TimelineEnd), with a stop request (None), or with an
error; the next one starts again from what the bucket holds. Nothing is retried in here, so a session has no state that
could survive a failure.

Postgres must be able to stop: a keepalive that asks for a reply flushes at once, and when nothing becomes durable for
REPLY_SECONDS after it, or the store has been dead for STORE_DEAD_SECONDS, the connection is closed; the slot keeps the
WAL. Where only whole segments are shipped, what the server waits for may be in the open one: then the connection is
closed after WHOLE_REPLY_SECONDS; and while nothing gets on and no more can be taken, it is not kept. While the queue is
full the socket is not read, but statuses go on: silence would be killed.
"""

from __future__ import annotations

import select
import time
from typing import Any

from pgbackup.core.acks import Acks
from pgbackup.core.durable_moment import DurableMoment, WalMoment
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.engines.base import StopSignal
from pgbackup.engines.wal.bookkeeping import RunQuietly, WalBookkeeping
from pgbackup.engines.wal.events import Durable, Failed, WakeableQueue
from pgbackup.engines.wal.pieces import load_stored
from pgbackup.engines.wal.port import WalShipping
from pgbackup.engines.wal.progress import WalPosition, WalProgress
from pgbackup.engines.wal.segment import PIECE_BYTES, OpenSegment
from pgbackup.engines.wal.session_begin import SessionBegin, WalSessionSettings
from pgbackup.engines.wal.store_patience import STORE_DEAD_SECONDS, StorePatience
from pgbackup.engines.wal.stored_twin import StoredTwin
from pgbackup.errors import ConnectionLost, StoreUnavailable
from pgbackup.postgres.replication import ReplicationConnection, TimelineEnd
from pgbackup.postgres.wire import Keepalive, WalData
from pgbackup.repository.codec import Codec
from pgbackup.storage.base import ObjectStore

REPLY_SECONDS = 5.0
WHOLE_REPLY_SECONDS = 1.0
_MESSAGES_PER_TURN = 64
_IDLE_SECONDS = 1.0


class WalSession:
    """See the module's docstring."""

    def __init__(
        self,
        *,
        connection: ReplicationConnection,
        store: ObjectStore,
        codec: Codec,
        shipping: WalShipping,
        settings: WalSessionSettings,
        progress: WalProgress,
        bookkeeping: WalBookkeeping,
    ) -> None:
        self._connection = connection
        self._store = store
        self._codec = codec
        self._settings = settings
        self._progress = progress
        self._bookkeeping = bookkeeping
        self._events = WakeableQueue()
        self._shipping = shipping
        self._piece_in_flight = False
        self._dry = False
        self._twin: StoredTwin | None = None
        self._flush_now = False
        self._pending_since: float | None = None
        self._reply_deadline: float | None = None
        self._last_status = 0.0
        self._told = Lsn(0)
        self._server_end = Lsn(0)
        self._moment = DurableMoment()

    def stream(self, begin: SessionBegin, stop: StopSignal) -> TimelineEnd | None:
        """Stream until the timeline ends or ``stop`` is set; the copy must be under way from ``begin.segment``.

        Raises StoreUnavailable, ConnectionLost, WrongCluster, Superseded, PiecesChanged and what the parts raise.
        """
        self._timeline = begin.segment.timeline
        self._claim = begin.claim
        self._begin = begin
        self._ended = False
        self._began = begin.segment.start
        self._acks = Acks(begin.segment.start)
        self._whole = Acks(begin.segment.start)
        self._uploads = self._shipping.open_uploads(self._events, self._progress.uploads, begin.before_confirming)
        self._patience = StorePatience(self._uploads)
        try:
            self._open(begin.segment)
            return self._loop(stop)
        finally:
            self._close_twin()
            self._uploads.close()
            self._events.close()

    def wake(self) -> None:
        """Whoever has set the stop signal ends a wait with it. For any thread, at any time."""
        self._events.wake()

    # -- the loop -------------------------------------------------------------------------------------------------

    def _loop(self, stop: StopSignal) -> TimelineEnd | None:
        self._publish()
        while not stop.is_set():
            end = self._receive() if self._has_room else None
            if end is not None:
                self._ended = True
                self._drain(time.monotonic() + STORE_DEAD_SECONDS * 4)
                if self._acks.confirmed < self._drain_target():
                    raise StoreUnavailable("the end of the timeline could not be made durable in time")
                return end
            self._flush_if_due()
            self._take_events()
            self._report_if_due()
            self._check_store()
            self._publish()
            if self._stands_full():
                self._ship_without_server(stop)
            self._wait()
        self._drain(time.monotonic() + self._settings.stop_seconds)
        return None

    def _receive(self) -> TimelineEnd | None:
        """Take messages until the socket is dry, the queue is full, or others need a turn."""
        quiet, self._dry = self._dry, False
        alone: Keepalive | None = None
        for _ in range(_MESSAGES_PER_TURN):
            message = self._connection.poll()
            if message is None:
                self._dry = True
                self._believe(alone)
                return None
            if isinstance(message, TimelineEnd):
                return message
            alone = message if quiet and isinstance(message, Keepalive) else None
            quiet = False
            if isinstance(message, Keepalive):
                self._on_keepalive(message)
            else:
                self._on_wal(message)
            if not self._has_room:
                return None
        return None

    @property
    def _has_room(self) -> bool:
        """Whether more may be read: neither the encoder nor the next piece has more waiting than it should."""
        return self._uploads.has_room and self._segment.pending_bytes < PIECE_BYTES

    def _on_wal(self, message: WalData) -> None:
        if message.start != self._received:
            raise ConnectionLost(
                "the server sent WAL from an unexpected place", detail=f"{message.start} instead of {self._received}"
            )
        self._server_end = max(self._server_end, message.server_end)
        self._moment.said(WalMoment(message.server_clock, message.server_end), self._acks.confirmed)
        data, offset = message.data, 0
        while offset < len(data):
            block = bytes(data[offset : offset + self._segment.room])
            offset += len(block)
            self._append(block)

    def _append(self, block: bytes) -> None:
        if self._server_end >= self._segment.name.end:
            self._segment.skip_pieces()
        elif not self._segment.received:
            self._open_twin(self._segment.name)
        before = self._segment.covered
        if self._claim is not None and self._claim.offer(self._segment.name, self._segment.received, block):
            self._claim = None
        self._segment.append(block)
        if self._segment.covered > before:
            start = self._segment.name.start
            self._acks.add(start, start + self._segment.covered)
        if self._twin is not None and self._twin.holds(block):
            self._acks.add(self._segment.name.start, self._received)
        self._uploads.feed(self._upload, block)
        if self._segment.pending_bytes and self._pending_since is None:
            self._pending_since = time.monotonic()
        if self._segment.complete:
            self._settle_claim()
            self._uploads.end(self._upload)
            self._open(self._segment.name.next())

    def _open(self, name: SegmentName) -> None:
        """Begin with a segment, and with the pieces of it that the repository holds."""
        self._close_twin()
        stored = load_stored(self._store, self._codec, name) if name in self._begin.with_pieces else []
        if not self._begin.piece_keys.issuperset(piece.key for piece in stored):
            self._begin.before_confirming()
        self._segment = OpenSegment(name, stored)
        if self._settings.flush_seconds is None:
            self._segment.skip_pieces()
        self._upload: Any = self._uploads.open(
            name, [piece.key for piece in stored], is_stored=name in self._begin.whole
        )
        self._pending_since = None

    def _open_twin(self, name: SegmentName) -> None:
        """The server is within a segment that the repository holds whole: compare, and put nothing beside it."""
        if name in self._begin.whole and self._settings.flush_seconds is not None:
            self._twin = StoredTwin(self._store, self._codec, name)
            self._segment.skip_pieces()

    def _close_twin(self) -> None:
        if self._twin is not None:
            self._twin.close()
            self._twin = None

    @property
    def _received(self) -> Lsn:
        return Lsn(self._segment.name.start + self._segment.received)

    # -- flushing -------------------------------------------------------------------------------------------------

    def _flush_if_due(self) -> None:
        if self._settings.flush_seconds is None or self._pending_since is None:
            self._flush_now = False
            return
        if self._piece_in_flight:
            return
        age = time.monotonic() - self._pending_since
        full = self._segment.pending_bytes >= PIECE_BYTES
        due = age >= self._settings.flush_seconds and (self._settings.flush_seconds > 0 or self._dry or age > 0.005)
        if self._flush_now or full or due:
            self._flush()

    def _flush(self) -> None:
        """Send what is pending as a piece."""
        self._flush_now = False
        self._pending_since = None
        piece = self._segment.take_piece()
        if piece is not None:
            self._settle_claim()
            self._piece_in_flight = True
            self._uploads.put_piece(self._upload, piece)

    def _settle_claim(self) -> None:
        """Before the first write on a timeline, claim it with the bytes that we have."""
        if self._claim is not None:
            self._claim.make()
            self._claim = None

    def _on_keepalive(self, message: Keepalive) -> None:
        self._server_end = max(self._server_end, message.server_end)
        if message.reply_requested:
            self._flush_now = True
            self._send_status()
            if self._reply_deadline is None:
                self._reply_deadline = self._next_reply_deadline()

    def _believe(self, alone: Keepalive | None) -> None:
        """A keepalive tells how far the server has sent, not how far its WAL is. The two are the same where it came
        into silence, and nothing behind it."""
        if alone is not None and alone.server_end >= self._server_end:
            self._moment.said(WalMoment(alone.server_clock, alone.server_end), self._acks.confirmed)

    # -- what became durable ----------------------------------------------------------------------------------------

    def _take_events(self) -> None:
        for event in self._events.take_all():
            if isinstance(event, Failed):
                raise event.error
            self._on_durable(event)

    def _on_durable(self, event: Durable) -> None:
        moved = self._acks.add(event.start, event.end)
        if event.whole:
            self._whole.add(event.start, event.end)
        else:
            self._piece_in_flight = False
        if not moved:
            return
        self._moment.reached(self._acks.confirmed)
        self._patience.progressed()
        if self._reply_deadline is not None:
            self._reply_deadline = self._next_reply_deadline()

    def _next_reply_deadline(self) -> float | None:
        """By when something more must become durable for a server that asks; None when everything is."""
        if self._acks.confirmed >= self._received:
            return None
        return time.monotonic() + (WHOLE_REPLY_SECONDS if self._waits_for_open_segment else REPLY_SECONDS)

    @property
    def _waits_for_open_segment(self) -> bool:
        """Whether all that is not durable is in the open segment, which is not shipped as it grows."""
        return self._settings.flush_seconds is None and self._acks.confirmed >= self._segment.name.start

    def _report_if_due(self) -> None:
        late = time.monotonic() - self._last_status >= self._settings.status_seconds
        if late or self._acks.reportable > self._told:
            self._send_status()
        self._bookkeeping.note(*self._to_note)

    @property
    def _to_note(self) -> tuple[RunQuietly, int, Lsn, WalMoment | None]:
        """No moment where the server is at work on a later timeline: all of this one lacks what it commits there."""
        moment = None if self._begin.historic or self._ended else self._moment.proven
        return self._uploads.run_quietly, self._timeline, self._acks.confirmed, moment

    def _send_status(self) -> None:
        if self._ended:
            # With the timeline the copy is over, and there is nobody to tell.
            return
        self._connection.send_status(self._acks.reportable)
        self._told = self._acks.reportable
        self._last_status = time.monotonic()

    def _publish(self, *, streaming: bool = True) -> None:
        self._progress.publish(
            WalPosition(
                timeline=self._timeline,
                began=self._began,
                received=self._received,
                confirmed=self._acks.confirmed,
                whole=self._whole.confirmed,
                server_end=self._server_end,
                streaming=streaming,
            )
        )

    # -- waiting, and giving up -------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Until the socket or an upload has something, or the next thing is due."""
        if self._has_room and not self._dry:
            return
        timeout = _IDLE_SECONDS
        if self._pending_since is not None and self._settings.flush_seconds is not None:
            due = self._pending_since + self._settings.flush_seconds - time.monotonic()
            timeout = timeout if self._piece_in_flight else max(0.0, min(timeout, due))
        sources: list[WakeableQueue | ReplicationConnection] = [self._events]
        if self._has_room:
            sources.append(self._connection)
        select.select(sources, [], [], timeout)

    def _check_store(self) -> None:
        if self._reply_deadline is not None and time.monotonic() > self._reply_deadline:
            if self._waits_for_open_segment:
                raise ConnectionLost(
                    "the server waits for WAL of the open segment, which is shipped when it is complete",
                    detail="it is probably stopping; the slot keeps the WAL",
                )
            raise StoreUnavailable(
                "the server asks for an answer and nothing became durable for 5 s", detail="it may be stopping"
            )
        self._patience.check()

    def _stands_full(self) -> bool:
        """Whether nothing more can be taken, and nothing got done for long, though the store may be well.

        What the server says is then not read, so it could not stop. Only where whole segments are shipped: otherwise
        memory is bounded in bytes, and the store alone decides.
        """
        is_full = self._settings.flush_seconds is None and not self._uploads.has_room
        return is_full and self._uploads.oldest_job_seconds() >= STORE_DEAD_SECONDS

    def _ship_without_server(self, stop: StopSignal) -> None:
        """Let go of the server, whose slot keeps the WAL, and finish what is on its way; then stream anew."""
        self._connection.close()
        while self._uploads.oldest_job_seconds() and not stop.is_set():
            self._take_events()
            self._publish(streaming=False)
            select.select([self._events], [], [], _IDLE_SECONDS)
        self._take_events()
        raise ConnectionLost("let go of the server, because WAL could not be shipped as fast as it came")

    def _drain(self, deadline: float) -> None:
        """No more is read: make everything received durable, as far as the deadline allows, and confirm it."""
        while time.monotonic() < deadline:
            if self._settings.flush_seconds is not None and not self._piece_in_flight:
                self._flush()
            self._take_events()
            if self._acks.reportable > self._told:
                self._send_status()
            if self._acks.confirmed >= self._drain_target():
                break
            select.select([self._events], [], [], 0.2)
        self._publish()
        self._bookkeeping.final(*self._to_note)

    def _drain_target(self) -> Lsn:
        """How far pieces can bring us: not into a segment of which only the whole is wanted."""
        if self._settings.flush_seconds is None or self._segment.catching_up:
            return self._segment.name.start
        return self._received
