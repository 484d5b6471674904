"""Real PostgreSQL servers that live for minutes: for the demo, for restore drills and for the tests.

``create_cluster`` makes a data directory with initdb; ``ThrowawayServer`` runs it, or any other data directory (a
restored one, a standby's). Settings go into its postgresql.conf, as with a real server, and come back with a restore.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg.conninfo import make_conninfo

from pgbackup.errors import PostgresError, ToolError
from pgbackup.postgres.binaries import Installation
from pgbackup.postgres.server_process import ServerProcess, wait_until
from pgbackup.postgres.server_settings import SettingValue, append_settings
from pgbackup.postgres.unprivileged import Account, readable_installation, server_account

SUPERUSER = "postgres"


@dataclass(frozen=True)
class ClusterOptions:
    """What initdb is told. ``password`` is the superuser's, needed where ``host_auth`` asks for one."""

    segment_mb: int = 16
    data_checksums: bool = True
    encoding: str = "UTF8"
    host_auth: str = "trust"
    password: str = ""
    settings: Mapping[str, SettingValue] = field(default_factory=dict)


def create_cluster(
    installation: Installation,
    directory: Path,
    options: ClusterOptions | None = None,
    *,
    account: Account | None = None,
) -> None:
    """Run initdb into a directory that does not exist yet; its parent must belong to the account."""
    options = options or ClusterOptions()
    account = account or server_account()
    programs = readable_installation(installation, account)
    command: list[str | Path] = [
        programs.tool("initdb"), "--pgdata", directory, "--username", SUPERUSER, "--no-locale", "--no-sync",
        "--encoding", options.encoding, "--auth-local", "trust", "--auth-host", options.host_auth,
        "--wal-segsize", str(options.segment_mb),
    ]  # fmt: skip
    if options.data_checksums:
        command.append("--data-checksums")
    elif installation.major >= 18:
        command.append("--no-data-checksums")
    if not options.password:
        account.run(command)
    else:
        with tempfile.NamedTemporaryFile("w", prefix="pgbackup-") as file:
            file.write(options.password + "\n")
            file.flush()
            account.own(Path(file.name))
            account.run([*command, "--pwfile", file.name])
    append_settings(directory / "postgresql.conf", options.settings)


class ThrowawayServer(ServerProcess):
    """A server to talk to, as its superuser."""

    def conninfo(self, *, user: str = SUPERUSER, dbname: str = "postgres", local: bool = False, **more: str) -> str:
        """A libpq connection string, over TCP or (``local``) over the socket."""
        host = str(self.socket_directory) if local else "127.0.0.1"
        return make_conninfo(host=host, port=str(self.port), user=user, dbname=dbname, **more)

    def connect(self, *, dbname: str = "postgres", user: str = SUPERUSER) -> psycopg.Connection[tuple[Any, ...]]:
        """A session over the socket in autocommit mode; the caller closes it."""
        text = self.conninfo(dbname=dbname, user=user, local=True, connect_timeout="10")
        return psycopg.connect(text, autocommit=True)

    def execute(
        self, text: str, parameters: Sequence[object] = (), *, dbname: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run one statement (several without parameters) as superuser; rows of the last, if it has any."""
        try:
            with self.connect(dbname=dbname) as connection:
                cursor = connection.execute(cast(Any, text), parameters or None)
                while cursor.nextset():
                    pass
                return cursor.fetchall() if cursor.description else []
        except psycopg.Error as exc:
            raise PostgresError("the throw-away server refused", detail=str(exc).strip()) from exc

    def configure(self, **settings: SettingValue) -> None:
        """Append settings to postgresql.conf; those that need no restart hold after ``reload``."""
        append_settings(self.data_directory / "postgresql.conf", settings)

    def reload(self) -> None:
        """Make it read its configuration again (it does so a moment later)."""
        self.execute("SELECT pg_reload_conf()")

    def promote(self, *, timeout: float = 60) -> None:
        """End recovery and wait until the server writes."""
        self.execute("SELECT pg_promote(true, %s)", [int(timeout)])
        self.wait_promoted(timeout=timeout)

    def wait_promoted(self, *, timeout: float = 60) -> None:
        """Wait until recovery has ended, by itself or because somebody asked for it."""
        if not wait_until(lambda: not self.running or self._left_recovery(), timeout):
            raise ToolError(f"the server in {self.data_directory} is still in recovery", detail=self.log_tail())
        self.pid  # noqa: B018 - raises when it has stopped

    def _left_recovery(self) -> bool:
        try:
            return self.execute("SELECT NOT pg_is_in_recovery()") == [(True,)]
        except PostgresError:
            return False
