"""Load for the tests: a thread that commits an increasing counter and remembers what was acknowledged; comparisons.

What a commit's acknowledgement promises is the whole point of a backup, so the writer is strict: a row counts as
acknowledged only when COMMIT returned without a warning. One whose COMMIT broke is *uncertain*: it may be there.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import psycopg

from pgbackup.core.lsn import Lsn
from pgbackup.postgres.table_checksums import describe_differences, table_checksums
from pgbackup.postgres.throwaway import ThrowawayServer


@dataclass(frozen=True, slots=True)
class Commit:
    """One acknowledged row. ``lsn``: the WAL up to here was flushed right after (None when the server died then);
    ``seconds``: how long the commit took."""

    n: int
    acknowledged: datetime
    lsn: Lsn | None
    seconds: float


class CounterWriter:
    """Inserts 1, 2, 3, ... into a table, a commit each, from a thread of its own, until ``stop``.

    ``pause_seconds`` lies between commits. With ``reconnect`` it goes on after a lost connection (the server restarts);
    without, it ends then. ``payload_bytes`` of text go with every row.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        table: str = "counter",
        pause_seconds: float = 0.001,
        payload_bytes: int = 100,
        reconnect: bool = False,
        start_at: int = 1,
    ) -> None:
        self.table = table
        self.uncertain: list[int] = []
        self.failure: BaseException | None = None
        self._conninfo = conninfo
        self._pause = pause_seconds
        self._payload = "x" * payload_bytes
        self._reconnect = reconnect
        self._next = start_at
        self._commits: list[Commit] = []
        self._moved = threading.Condition()
        self._stop = threading.Event()
        self._warned = False
        self._thread = threading.Thread(target=self._run, name=f"writer-{table}", daemon=True)

    def start(self) -> Self:
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            text: Any = f"CREATE TABLE IF NOT EXISTS {self.table} (n bigint PRIMARY KEY, at timestamptz, payload text)"
            connection.execute(text)
        self._thread.start()
        return self

    def stop(self, *, timeout: float = 30) -> list[Commit]:
        """End after the commit under way. Raises what ended the thread, if it did not end on request."""
        self._stop.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"writer of {self.table} hangs in commit {self._next}")
        if self.failure is not None and not isinstance(self.failure, psycopg.OperationalError):
            raise self.failure
        return self.acknowledged()

    def acknowledged(self) -> list[Commit]:
        """Every acknowledged commit so far, in order."""
        with self._moved:
            return list(self._commits)

    def last(self) -> Commit:
        """The newest acknowledged commit; waits for the first one."""
        return self.wait_for(1)

    def wait_for(self, count: int, *, timeout: float = 60) -> Commit:
        """Wait until ``count`` commits are acknowledged, and return the newest."""
        with self._moved:
            if not self._moved.wait_for(lambda: len(self._commits) >= count or not self._thread.is_alive(), timeout):
                raise TimeoutError(f"only {len(self._commits)} of {count} commits in {timeout:g} s")
            if len(self._commits) < count:
                raise AssertionError(f"the writer ended after {len(self._commits)} commits: {self.failure!r}")
            return self._commits[-1]

    def wait_more(self, count: int, *, timeout: float = 60) -> Commit:
        """Wait for ``count`` more acknowledged commits than there are now."""
        return self.wait_for(len(self.acknowledged()) + count, timeout=timeout)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        self._thread.join(30)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    self._write()
                except psycopg.OperationalError as exc:
                    self.failure = exc
                    if not self._reconnect:
                        return
                    self._stop.wait(0.1)
        except BaseException as exc:  # noqa: BLE001 - handed to whoever calls stop()
            self.failure = exc
        finally:
            with self._moved:
                self._moved.notify_all()

    def _write(self) -> None:
        with psycopg.connect(self._conninfo, autocommit=True, connect_timeout=5) as connection:
            connection.add_notice_handler(self._notice)
            self._skip_what_is_there(connection)
            while not self._stop.is_set():
                self._insert(connection)
                self._stop.wait(self._pause)

    def _insert(self, connection: psycopg.Connection[Any]) -> None:
        n, self._warned = self._next, False
        insert: Any = f"INSERT INTO {self.table} VALUES (%s, clock_timestamp(), %s)"
        begin = time.monotonic()
        self._next += 1
        try:
            connection.execute(insert, (n, self._payload))
        except psycopg.OperationalError:
            self.uncertain.append(n)
            raise
        seconds, moment = time.monotonic() - begin, datetime.now(UTC)
        if self._warned:
            self.uncertain.append(n)
            return
        self._remember(Commit(n, moment, self._flushed(connection), seconds))

    def _flushed(self, connection: psycopg.Connection[Any]) -> Lsn | None:
        try:
            row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        except psycopg.OperationalError:
            return None
        return Lsn.parse(row[0]) if row else None

    def _remember(self, commit: Commit) -> None:
        with self._moved:
            self._commits.append(commit)
            self._moved.notify_all()

    def _skip_what_is_there(self, connection: psycopg.Connection[Any]) -> None:
        """A row whose COMMIT broke may be there after all: never try its number again."""
        text: Any = f"SELECT coalesce(max(n), 0) FROM {self.table}"
        row = connection.execute(text).fetchone()
        self._next = max(self._next, (row[0] if row else 0) + 1)

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        # "The transaction has already committed locally, but might not have been replicated to the standby."
        if notice.severity_nonlocalized == "WARNING":
            self._warned = True


def read_counter(server: ThrowawayServer, table: str = "counter") -> list[int]:
    """The numbers in a writer's table, in order."""
    return [n for (n,) in server.execute(f"SELECT n FROM {table} ORDER BY n")]


def assert_counter(server: ThrowawayServer, commits: list[Commit], table: str = "counter") -> None:
    """Every acknowledged row is there."""
    there = set(read_counter(server, table))
    missing = [commit.n for commit in commits if commit.n not in there]
    assert not missing, f"{len(missing)} acknowledged rows of {len(commits)} are lost: {missing[:5]} to {missing[-1]}"


def compare_rows(left: ThrowawayServer, right: ThrowawayServer) -> None:
    """All tables of both servers have the same rows."""
    differences = describe_differences(table_checksums(left), table_checksums(right))
    assert not differences, "\n".join(differences[:20])
