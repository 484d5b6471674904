"""The demo's database: a shop whose customers never stop ordering, and whose orders somebody drops."""

from __future__ import annotations

import threading
from datetime import datetime

from pgbackup.errors import ToolError
from pgbackup.postgres.throwaway import ThrowawayServer

ROLE = "pgbackup"
_SCHEMA = """
CREATE ROLE pgbackup LOGIN REPLICATION;
GRANT pg_monitor TO pgbackup;
CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
INSERT INTO customers (name) SELECT 'customer ' || n FROM generate_series(1, 20000) AS n;
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer bigint REFERENCES customers,
    at timestamptz NOT NULL DEFAULT clock_timestamp(), note text NOT NULL);
CREATE TABLE visits (at timestamptz NOT NULL DEFAULT clock_timestamp());
"""
_ORDER = (
    "INSERT INTO orders (customer, note) VALUES (1 + floor(random() * 20000)::bigint, repeat(md5(random()::text), 20))"
)
_VISIT = "INSERT INTO visits DEFAULT VALUES"
_PAUSE_SECONDS = 0.005


def open_shop(server: ThrowawayServer) -> None:
    """Make the tables and the role that pgbackup needs: LOGIN, REPLICATION and pg_monitor, nothing more."""
    server.execute(_SCHEMA)


def server_time(server: ThrowawayServer) -> datetime:
    """Now, by the server's clock: the one that a restore to a time goes by."""
    moment = server.execute("SELECT clock_timestamp()")[0][0]
    assert isinstance(moment, datetime)
    return moment


def count_rows(server: ThrowawayServer, table: str) -> int:
    return int(server.execute(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - a name of this module's


class Customers:
    """Writes rows from a thread of its own, a commit each, until ``stop``."""

    def __init__(self, server: ThrowawayServer, *, ordering: bool = True) -> None:
        self._server = server
        self._statement = _ORDER if ordering else _VISIT
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="demo-customers", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the commit under way. Raises ToolError when a row could not be written."""
        self._stop.set()
        self._thread.join(30)
        if self._failure is not None:
            raise ToolError("the demo's rows could not be written", detail=str(self._failure)) from self._failure

    def close(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        try:
            with self._server.connect(dbname="postgres") as connection:
                while not self._stop.wait(_PAUSE_SECONDS):
                    connection.execute(self._statement)
        except Exception as exc:  # noqa: BLE001 - handed to stop()
            self._failure = exc
