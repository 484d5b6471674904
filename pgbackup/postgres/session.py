"""An ordinary SQL session: who the server is, where it stands, and our slot.

Everything runs with ``synchronous_commit = local`` (a session that waits for the standby that it is itself would wait
for ever) and ``client_encoding = UTF8`` (a SQL_ASCII server would send bytes), with a statement_timeout and a
lock_timeout, so nothing waits for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

import psycopg

from pgbackup.core.lsn import Lsn
from pgbackup.errors import PgbackupError
from pgbackup.postgres import server_errors
from pgbackup.postgres.replication import connection_parameters, parse_conninfo

_OPTIONS = "-c synchronous_commit=local -c statement_timeout=60000 -c lock_timeout=10000"

_FACTS = """
SELECT current_setting('server_version_num')::int,
       (SELECT system_identifier FROM pg_control_system()),
       (SELECT timeline_id FROM pg_control_checkpoint()),
       (SELECT redo_lsn::text FROM pg_control_checkpoint()),
       pg_is_in_recovery(),
       (SELECT bytes_per_wal_segment FROM pg_control_init()),
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'),
       current_setting('data_directory', true),
       current_setting('data_checksums') = 'on',
       CASE WHEN pg_is_in_recovery()
            THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
            ELSE pg_current_wal_flush_lsn() END::text,
       coalesce(current_setting('restore_command', true), '')
"""

_SLOT = """
SELECT active, coalesce(restart_lsn::text, ''), coalesce(wal_status, ''), safe_wal_size,
       slot_type, temporary
  FROM pg_replication_slots WHERE slot_name = %s
"""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One look at a server; ``timeline`` is that of its latest checkpoint, ``flush_lsn`` the end of its durable WAL."""

    version_num: int
    system_identifier: int
    timeline: int
    redo_lsn: Lsn
    in_recovery: bool
    segment_bytes: int
    wal_sender_timeout_seconds: float
    data_directory: str
    data_checksums: bool
    flush_lsn: Lsn
    restore_command: str

    @property
    def major(self) -> int:
        return self.version_num // 10000


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """A row of pg_replication_slots; ``safe_wal_bytes`` is None where nothing bounds the slot."""

    active: bool
    restart_lsn: Lsn | None
    wal_status: str
    safe_wal_bytes: int | None
    physical: bool
    temporary: bool


class Session:
    """One SQL connection in autocommit mode. Not shared between threads."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._role = connection.info.user

    @classmethod
    def connect(cls, conninfo: str, *, application_name: str, database: str | None = None) -> Session:
        """Connect to ``database``, else the DSN's own, else ``postgres``. Raises what server_errors makes of it."""
        given = parse_conninfo(conninfo)
        extra = {"dbname": database or str(given.get("dbname") or _environment_database())}
        options = f"{given.get('options') or ''} {_OPTIONS}".strip()
        text = connection_parameters(conninfo, application_name, options=options, **extra)
        try:
            return cls(psycopg.connect(text, autocommit=True))
        except psycopg.OperationalError as exc:
            raise server_errors.from_connect(str(exc), server_errors.role_of(exc)) from exc
        except psycopg.Error as exc:
            raise translate(exc) from exc

    def query(self, text: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows of a statement, empty for one without a result. Raises PostgresError or ConnectionLost."""
        try:
            cursor = self._connection.execute(cast(Any, text), parameters or None)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as exc:
            raise translate(exc, self._role) from exc

    def facts(self) -> ServerFacts:
        """One consistent look at the server."""
        row = self.query(_FACTS)[0]
        return ServerFacts(
            version_num=row[0],
            system_identifier=row[1] % (1 << 64),
            timeline=row[2],
            redo_lsn=Lsn.parse(row[3]),
            in_recovery=row[4],
            segment_bytes=row[5],
            wal_sender_timeout_seconds=row[6] / 1000,
            data_directory=row[7] or "",
            data_checksums=row[8],
            flush_lsn=Lsn.parse(row[9] or "0/0"),
            restore_command=row[10],
        )

    def slot(self, name: str) -> SlotFacts | None:
        """The slot of that name, or None."""
        rows = self.query(_SLOT, (name,))
        if not rows:
            return None
        active, restart, status, safe, kind, temporary = rows[0]
        return SlotFacts(active, Lsn.parse(restart) if restart else None, status, safe, kind == "physical", temporary)

    def create_slot(self, name: str) -> None:
        """Create a persistent physical slot that reserves WAL at once."""
        self.query("SELECT pg_create_physical_replication_slot(%s, true)", (name,))

    def drop_slot(self, name: str) -> None:
        self.query("SELECT pg_drop_replication_slot(%s)", (name,))

    def end_slot_holder(self, name: str) -> None:
        """End the connection that streams from a slot, if it is of our own role. Raises PostgresError when not."""
        self.query(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
            " WHERE slot_name = %s AND active_pid IS NOT NULL",
            (name,),
        )

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """For the other modules of this room."""
        return self._connection

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def translate(exc: psycopg.Error, role: str = "") -> PgbackupError:
    """Our error for one of psycopg's, keeping the SQLSTATE."""
    message = exc.diag.message_primary or str(exc)
    if exc.diag.message_detail:
        message += f"; {exc.diag.message_detail}"
    return server_errors.from_result(exc.sqlstate, message, role)


def _environment_database() -> str:
    """libpq's PGDATABASE, else ``postgres``: libpq itself would fall back to the role's name."""
    default = next(o for o in psycopg.pq.Conninfo.get_defaults() if o.keyword == b"dbname")
    return (default.val or b"postgres").decode() if default.envvar and default.val else "postgres"
