"""BASE_BACKUP over a replication connection: start, a stream of messages, the stop LSN.

Every wait is bounded by looking at the stop signal twice a second, and while data flows the signal is looked at with
every read, which is every mebibyte or more often. A damaged page does not end the stream: the server warns (the
warning names file and block), sends everything, reports the stop LSN, and only then its ERROR; all of that is kept for
the caller to judge.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from psycopg import pq

from pgbackup.core.backup import Tablespace
from pgbackup.core.lsn import Lsn
from pgbackup.core.stop import StopSignal
from pgbackup.errors import BackupError, ConnectionLost, PostgresError
from pgbackup.postgres.base_backup_wire import (
    DATA,
    ArchiveBegins,
    BackupMessage,
    BaseBackupOptions,
    ManifestBegins,
    PageWarnings,
    format_command,
    parse_copy_message,
)
from pgbackup.postgres.receive_buffer import widen
from pgbackup.postgres.replication import ReplicationConnection, lost_connection

_WAIT_MILLISECONDS = 500
_SILENCE_SECONDS = 3600.0
_BROKE = "the base backup stream broke"
_DATA_CORRUPTED = b"XX001"


@dataclass(frozen=True, slots=True)
class BackupStart:
    """What the server says before the first byte; ``estimated_bytes`` is its own estimate, or None."""

    start_lsn: Lsn
    timeline: int
    tablespaces: tuple[Tablespace, ...]
    estimated_bytes: int | None


@dataclass(frozen=True, slots=True)
class BackupEnd:
    """What the server says at the end; ``damaged``: files with wrong page checksums, and the blocks it named;
    ``warned``: everything that it named in a warning, below the data directory."""

    stop_lsn: Lsn
    timeline: int
    damaged: dict[str, list[int]]
    warned: frozenset[str] = frozenset()


class BaseBackupStream:
    """One base backup on one connection: ``start``, then ``messages`` to the end, then ``end``.

    Not thread-safe. Close the connection afterwards, however it ended: the server gives up when it is gone.
    """

    def __init__(self, connection: ReplicationConnection, options: BaseBackupOptions) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._options = options
        self._major = connection.server_version // 10000
        self._archives: list[int | None] = []
        self._warnings = PageWarnings()
        self._stop: tuple[Lsn, int] | None = None
        self._pages_damaged = False
        self._pgconn.notice_handler = self._on_notice
        self._poller = select.poll()
        self._poller.register(self._pgconn.socket, select.POLLIN)

    def start(self, stop: StopSignal) -> BackupStart:
        """Send the command and wait for its checkpoint. Raises BackupError when told to stop."""
        with lost_connection(_BROKE):
            self._pgconn.send_query(format_command(self._options, self._major).encode())
            begin = self._wait_result(stop)
            spaces = self._wait_result(stop)
        if begin is None or spaces is None:
            raise ConnectionLost(_BROKE)
        lsn, timeline = _position(begin)
        return BackupStart(lsn, timeline, self._tablespaces(spaces), _estimate(spaces))

    def messages(self, stop: StopSignal) -> Iterator[BackupMessage]:
        """Everything up to the end of the copy; the memoryviews are the reader's to keep.

        Raises BackupError when told to stop, ConnectionLost, and what the server refuses.
        """
        copies = 0
        while (result := self._next_result(stop)) is not None:
            if result.status == pq.ExecStatus.COPY_OUT:
                if copies == 0:
                    widen(self._pgconn, self._poller)
                if self._major < 15:
                    yield self._old_archive(copies)
                copies += 1
                yield from self._copy(stop)
            elif result.status == pq.ExecStatus.TUPLES_OK:
                self._stop = _position(result)

    def end(self) -> BackupEnd:
        """After the last message. Raises PostgresError when the server did not finish the backup."""
        if self._stop is None:
            raise PostgresError("the server ended the base backup without a stop LSN")
        damaged = self._warnings.damaged() if self._pages_damaged else {}
        return BackupEnd(*self._stop, damaged, frozenset(self._warnings.warned))

    def cancel(self) -> None:
        """Ask the server to give up; does not wait for long, for the server may be out of reach."""
        self._connection.cancel()

    # -- the stream -----------------------------------------------------------------------------------------------

    def _copy(self, stop: StopSignal) -> Iterator[BackupMessage]:
        get_copy_data, consume_input = self._pgconn.get_copy_data, self._pgconn.consume_input
        typed = self._major >= 15
        with lost_connection(_BROKE):
            while True:
                size, data = get_copy_data(1)
                if size == 0:
                    if stop.is_set():
                        self._give_up()
                    consume_input()  # mostly there is something, and asking first would be one more system call
                    size, data = get_copy_data(1)
                if size == 0:
                    self._wait_readable(stop)
                    continue
                if size < 0:
                    return
                if not typed:
                    yield data
                elif data[0] == DATA:
                    yield data[1:]
                elif not isinstance(message := self._parsed(data), int):
                    yield message

    def _parsed(self, view: memoryview) -> BackupMessage | int:
        try:
            return parse_copy_message(view)
        except ValueError as exc:
            raise PostgresError("the server's base backup stream cannot be read", detail=str(exc)) from exc

    def _old_archive(self, copies: int) -> BackupMessage:
        """14 names no archives: they come in the order of the tablespace list, the manifest after them."""
        return ArchiveBegins(self._archives[copies]) if copies < len(self._archives) else ManifestBegins()

    def _next_result(self, stop: StopSignal) -> pq.abc.PGresult | None:
        with lost_connection(_BROKE):
            return self._wait_result(stop)

    def _wait_result(self, stop: StopSignal) -> pq.abc.PGresult | None:
        """The next result, or None after the last one; never blocks for longer than a look at the stop signal."""
        while self._pgconn.is_busy():
            self._wait_readable(stop)
        result = self._pgconn.get_result()
        if result is None or result.status not in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE):
            return result
        if self._stop is None or result.error_field(pq.DiagnosticField.SQLSTATE) != _DATA_CORRUPTED:
            raise self._connection.error(result)
        # After the stop LSN this error says that pages were damaged; everything was sent, and the caller decides.
        self._pages_damaged = True
        return self._wait_result(stop)

    def _wait_readable(self, stop: StopSignal) -> None:
        """Wait until the server has sent something. Raises BackupError when told to stop."""
        deadline = time.monotonic() + _SILENCE_SECONDS
        self._check(stop)
        while not self._poller.poll(_WAIT_MILLISECONDS):
            self._check(stop)
            if time.monotonic() > deadline:
                raise ConnectionLost(_BROKE, detail=f"the server sent nothing for {_SILENCE_SECONDS:.0f} s")
        self._pgconn.consume_input()

    def _check(self, stop: StopSignal) -> None:
        if stop.is_set():
            self._give_up()

    def _give_up(self) -> NoReturn:
        self.cancel()
        raise BackupError("the base backup was stopped")

    def _tablespaces(self, rows: pq.abc.PGresult) -> tuple[Tablespace, ...]:
        """The tablespaces of the list; the row without an OID is the data directory."""
        found = []
        for row in range(rows.ntuples):
            oid, location = _text(rows, row, 0), _text(rows, row, 1)
            self._archives.append(int(oid) if oid else None)
            if oid:
                found.append(Tablespace(int(oid), location or ""))
        return tuple(found)

    def _on_notice(self, notice: pq.abc.PGresult) -> None:
        text = (notice.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode("utf-8", "replace")
        self._warnings.add(text)


def _position(rows: pq.abc.PGresult) -> tuple[Lsn, int]:
    lsn, timeline = _text(rows, 0, 0), _text(rows, 0, 1)
    if lsn is None or timeline is None:
        raise PostgresError("the server did not say where the base backup starts or stops")
    return Lsn.parse(lsn), int(timeline)


def _estimate(spaces: pq.abc.PGresult) -> int | None:
    """The sum of the sizes, which come in KiB."""
    sizes = [_text(spaces, row, 2) for row in range(spaces.ntuples)]
    return sum(int(size) for size in sizes if size) * 1024 or None


def _text(result: pq.abc.PGresult, row: int, column: int) -> str | None:
    if row >= result.ntuples:
        return None
    value = result.get_value(row, column)
    return None if value is None else value.decode("utf-8", "replace")
