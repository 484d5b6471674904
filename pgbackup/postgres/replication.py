"""A replication connection: the protocol's commands over libpq (psycopg.pq), without SQL.

Nothing here waits for ever: connecting has libpq's connect_timeout, commands are answered within ANSWER_TIMEOUT_SECONDS
or fail, and the WAL stream is polled (``poll`` never blocks; the caller selects on ``fileno``).
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgbackup.core.lsn import Lsn
from pgbackup.errors import ConfigError, ConnectionLost, PgbackupError, PostgresError
from pgbackup.postgres import server_errors
from pgbackup.postgres.wire import Keepalive, WalData, format_status, parse_stream_message

CONNECT_TIMEOUT_SECONDS = 10
CANCEL_TIMEOUT_SECONDS = 2.0
ANSWER_TIMEOUT_SECONDS = 60
"""For replication commands, which the server answers from memory: the statement_timeout of the SQL sessions."""
_DONE, _NOTHING_YET = -1, 0


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """The answer to IDENTIFY_SYSTEM: who this cluster is and where it stands."""

    system_identifier: int
    timeline: int
    flush_lsn: Lsn


@dataclass(frozen=True, slots=True)
class TimelineEnd:
    """The server ended the stream of a timeline: what comes next, and where the old one ended."""

    next_timeline: int
    switch_lsn: Lsn


def parse_conninfo(conninfo: str) -> dict[str, Any]:
    """The options of a conninfo. Raises ConfigError, without libpq's words: they may quote a password."""
    try:
        return dict(conninfo_to_dict(conninfo))
    except psycopg.Error:
        raise ConfigError(
            "PGBACKUP_DSN is not a connection string that libpq takes",
            hint="Write key=value pairs or postgresql://user@host:port/, with options that libpq knows.",
        ) from None


def connection_parameters(conninfo: str, application_name: str, **extra: str) -> str:
    """A libpq conninfo with our bounds where the operator set none. Raises ConfigError for one that libpq refuses."""
    given = parse_conninfo(conninfo)
    bounds = {
        "connect_timeout": str(CONNECT_TIMEOUT_SECONDS),
        "keepalives_idle": "20",
        "keepalives_interval": "5",
        "keepalives_count": "4",
        "tcp_user_timeout": "40000",
    }
    missing = {key: value for key, value in bounds.items() if key not in given}
    return make_conninfo(conninfo, **missing, application_name=application_name, client_encoding="UTF8", **extra)


@contextmanager
def lost_connection(message: str) -> Iterator[None]:
    """Translate libpq's exceptions (a connection that broke under a call) into ConnectionLost."""
    try:
        yield
    except psycopg.Error as exc:
        raise ConnectionLost(message, detail=server_errors.clean(str(exc))) from exc


class ReplicationConnection:
    """One walsender at the other end. Not thread-safe: one thread owns it."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.pgconn = connection.pgconn
        self._role = connection.info.user
        self._streaming = False

    @classmethod
    def connect(cls, conninfo: str, *, application_name: str) -> ReplicationConnection:
        """Connect with ``replication=true``. Raises ConnectionLost, or PostgresError with the line or SQL to add."""
        text = connection_parameters(conninfo, application_name, replication="true")
        try:
            # Not PGconn.connect: it waits with the interpreter's lock held, so that no other thread of ours would do
            # anything while a server hangs.
            return cls(psycopg.connect(text, autocommit=True))
        except psycopg.Error as exc:
            raise server_errors.from_connect(str(exc), server_errors.role_of(exc)) from exc

    @property
    def server_version(self) -> int:
        """As ``server_version_num``: 160004."""
        return self.pgconn.server_version

    def fileno(self) -> int:
        return self.pgconn.socket

    def close(self) -> None:
        self._connection.close()

    def cancel(self) -> None:
        """Ask the server to give up what it does. For CANCEL_TIMEOUT_SECONDS at most: closing says the same, later."""
        with suppress(psycopg.Error):
            self._connection.cancel_safe(timeout=CANCEL_TIMEOUT_SECONDS)

    # -- commands -------------------------------------------------------------------------------------------------

    def command(self, text: str) -> list[list[str | None]]:
        """Run one replication command and return its rows as text. Raises what server_errors makes of a refusal."""
        result = self._execute(text)
        if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise self.error(result)
        return [
            [_text(result.get_value(row, column)) for column in range(result.nfields)] for row in range(result.ntuples)
        ]

    def identify(self) -> SystemIdentity:
        row = self.command("IDENTIFY_SYSTEM")[0]
        return SystemIdentity(int(row[0] or 0), int(row[1] or 0), Lsn.parse(row[2] or "0/0"))

    def show(self, name: str) -> str:
        return self.command(f"SHOW {name}")[0][0] or ""

    def timeline_history(self, timeline: int) -> str:
        """The content of a history file. Raises PostgresError when the server does not have it."""
        result = self._execute(f"TIMELINE_HISTORY {timeline}")
        if result.status != pq.ExecStatus.TUPLES_OK or not result.ntuples:
            raise self.error(result)
        return (result.get_value(0, 1) or b"").decode("utf-8", "replace")

    def create_slot(self, name: str, *, temporary: bool = False) -> None:
        """Create a physical slot that reserves WAL at once."""
        kind = "TEMPORARY PHYSICAL" if temporary else "PHYSICAL"
        self.command(f"CREATE_REPLICATION_SLOT {_identifier(name)} {kind} RESERVE_WAL")

    def drop_slot(self, name: str) -> None:
        self.command(f"DROP_REPLICATION_SLOT {_identifier(name)}")

    # -- streaming ------------------------------------------------------------------------------------------------

    def start_streaming(self, start: Lsn, timeline: int, slot: str | None) -> TimelineEnd | None:
        """Enter CopyBoth. Returns a TimelineEnd at once when that timeline has nothing after ``start``."""
        with_slot = f"SLOT {_identifier(slot)} " if slot else ""
        result = self._execute(f"START_REPLICATION {with_slot}PHYSICAL {start} TIMELINE {timeline}")
        if result.status == pq.ExecStatus.TUPLES_OK:
            return _timeline_end(result)
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise self.error(result)
        self.pgconn.nonblocking = 1
        self._streaming = True
        return None

    def poll(self) -> WalData | Keepalive | TimelineEnd | None:
        """The next message of the stream, or None when nothing has arrived. Never blocks.

        Raises WalGone, ConnectionLost and the like when the stream broke, PostgresError for what is no message of it.
        """
        with lost_connection("the WAL stream broke"):
            size, data = self.pgconn.get_copy_data(1)
            if size == _NOTHING_YET:
                self.pgconn.consume_input()
                size, data = self.pgconn.get_copy_data(1)
        if size == _NOTHING_YET:
            return None
        if size == _DONE:
            with lost_connection("the WAL stream broke"):
                return self._finish_stream()
        try:
            return parse_stream_message(data)
        except ValueError as exc:
            raise PostgresError(
                "the server's WAL stream cannot be read",
                detail=str(exc),
                hint="Is this PostgreSQL? Or does something on the way change what it sends?",
            ) from exc

    def send_status(self, durable: Lsn) -> None:
        """Tell the server what is durable. Raises ConnectionLost."""
        with lost_connection("the WAL stream broke"):
            self.pgconn.put_copy_data(format_status(durable, datetime.now(UTC)))
            self.pgconn.flush()

    def _finish_stream(self) -> TimelineEnd:
        """The server ended the copy: its result says which timeline is next, or which error ended the stream."""
        self._streaming = False
        self.pgconn.nonblocking = 0
        end: TimelineEnd | None = None
        sent_end = False
        while (result := self._next_result()) is not None:
            if result.status in (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_BOTH):
                if sent_end:
                    raise ConnectionLost("the WAL stream did not end as the protocol says")
                self.pgconn.put_copy_end()
                sent_end = True
            elif result.status == pq.ExecStatus.TUPLES_OK:
                end = _timeline_end(result)
            elif result.status != pq.ExecStatus.COMMAND_OK:
                raise self.error(result)
        if end is None:
            raise ConnectionLost("the server ended the WAL stream", detail="it is stopping")
        return end

    # -- results --------------------------------------------------------------------------------------------------

    def _execute(self, text: str) -> pq.abc.PGresult:
        """The first result of a command; the rest is read as well, unless a copy begins. Raises ConnectionLost."""
        with lost_connection("the connection to the server broke"):
            self.pgconn.send_query(text.encode())
            result = self._next_result()
            if result is None:
                raise ConnectionLost("the server did not answer a replication command")
            if result.status != pq.ExecStatus.COPY_BOTH:
                while self._next_result() is not None:
                    pass
        return result

    def _next_result(self) -> pq.abc.PGresult | None:
        """The next result, or None after the last one.

        libpq's own waiting would be for ever where a local server hangs, and partly with the interpreter's lock held.
        """
        while self.pgconn.is_busy():
            if not select.select([self.fileno()], [], [], ANSWER_TIMEOUT_SECONDS)[0]:
                raise ConnectionLost(f"the server did not answer for {ANSWER_TIMEOUT_SECONDS} s")
            self.pgconn.consume_input()
        return self.pgconn.get_result()

    # -- errors ---------------------------------------------------------------------------------------------------

    def error(self, result: pq.abc.PGresult) -> PgbackupError:
        """Our error for a result that is not what was asked for."""
        state = result.error_field(pq.DiagnosticField.SQLSTATE)
        text = result.error_message.decode("utf-8", "replace") or self._message()
        return server_errors.from_result(state.decode() if state else None, text, self._role)

    def _message(self) -> str:
        return server_errors.clean(self.pgconn.error_message.decode("utf-8", "replace"))


def _timeline_end(result: pq.abc.PGresult) -> TimelineEnd:
    timeline, lsn = _text(result.get_value(0, 0)), _text(result.get_value(0, 1))
    if timeline is None or lsn is None:
        raise PostgresError("the server did not name the next timeline")
    return TimelineEnd(int(timeline), Lsn.parse(lsn))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
