"""Small notes beside the WAL: the last confirmed position, and time marks that tie the server's clock to an LSN.

At most once a minute while WAL moves, and once more when it rests; an idle database writes nothing. The notes help a
restore to say what it should find; losing one loses no WAL, so a failure here is logged and forgotten.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime

from pgbackup.core.confirmed_note import ConfirmedNote
from pgbackup.core.durable_moment import WalMoment
from pgbackup.core.lsn import Lsn
from pgbackup.errors import PgbackupError
from pgbackup.postgres.wire import clock_to_datetime
from pgbackup.repository import keys
from pgbackup.repository.confirmed_notes import write_note
from pgbackup.storage.base import ObjectStore

NOTE_SECONDS = 60.0
IDLE_NOTE_SECONDS = 600.0
"""While nothing is written: `restore --to` takes no moment later than the newest mark, so marks go on."""
_FINAL_SECONDS = 2.0
_log = logging.getLogger(__name__)

RunQuietly = Callable[[Callable[[], None]], "Future[None]"]


class WalBookkeeping:
    """Writes ``status.json`` and time marks. ``on_note`` runs with every note (the lease's heartbeat); ``leads`` says
    whether the lease is the writer's own. ``beyond``: where a stream began that goes on from nothing stored; to have
    come no further says nothing of the repository, and a restore would look for WAL that was never there."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        writer: str,
        on_note: Callable[[int], None] | None = None,
        leads: Callable[[], bool] = lambda: False,
        beyond: Lsn | None = None,
    ) -> None:
        self._store = store
        self._writer = writer
        self._on_note = on_note
        self._leads = leads
        self._beyond = beyond
        self._next = self._next_idle = time.monotonic()
        self._next_position = self._next + NOTE_SECONDS
        self._noted: tuple[int, Lsn] = (0, Lsn(0))
        self._running: Future[None] | None = None

    def note(self, run: RunQuietly, timeline: int, confirmed: Lsn, moment: WalMoment | None) -> None:
        """Write a note when one is due. ``moment``: the newest whose WAL is durable, None when none is known: then the
        position is noted all the same, and the heartbeat goes on, when a long way is being caught up."""
        now = time.monotonic()
        if self._says_nothing(confirmed):
            return
        if now < self._due(moved=(timeline, confirmed) != self._noted, timed=moment is not None):
            return
        if self._running is not None and not self._running.done():
            return
        self._next = self._next_position = now + NOTE_SECONDS
        self._next_idle = now + IDLE_NOTE_SECONDS
        self._running = self._start(run, timeline, confirmed, moment)

    def _due(self, *, moved: bool, timed: bool) -> float:
        if timed:
            return self._next if moved else self._next_idle
        return self._next_position if moved else math.inf

    def final(self, run: RunQuietly, timeline: int, confirmed: Lsn, moment: WalMoment | None) -> None:
        """The session ends: one last note, waited for briefly."""
        if (timeline, confirmed) == self._noted or self._says_nothing(confirmed):
            return
        job = self._start(run, timeline, confirmed, moment)
        deadline = time.monotonic() + _FINAL_SECONDS
        while not job.done() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _says_nothing(self, confirmed: Lsn) -> bool:
        return self._beyond is not None and confirmed <= self._beyond

    def _start(self, run: RunQuietly, timeline: int, confirmed: Lsn, moment: WalMoment | None) -> Future[None]:
        self._noted = (timeline, confirmed)
        note = ConfirmedNote(timeline, confirmed, datetime.now(UTC))
        return run(lambda: self._write(note, moment))

    def _write(self, note: ConfirmedNote, proven: WalMoment | None) -> None:
        moment = clock_to_datetime(proven.clock) if proven else None
        try:
            write_note(self._store, note, writer=self._writer, server_time=moment, leads=self._leads)
            if moment and proven:
                self._store.put_if_absent(keys.mark(moment, note.timeline, proven.lsn), b"")
            if self._on_note is not None:
                self._on_note(note.timeline)
        except PgbackupError as exc:
            _log.warning("bookkeeping could not be written: %s", exc)
