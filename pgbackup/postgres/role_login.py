"""Tries whether a role gets in, in both ways that pgbackup needs: nothing else proves passwords and pg_hba.conf."""

from __future__ import annotations

from psycopg.conninfo import make_conninfo

from pgbackup.errors import PgbackupError
from pgbackup.postgres.replication import ReplicationConnection
from pgbackup.postgres.session import Session


def why_not_let_in(conninfo: str, role: str, *, application_name: str) -> PgbackupError | None:
    """None when ``role`` can connect for SQL and for replication, else the first failure."""
    text = make_conninfo(conninfo, user=role)
    try:
        Session.connect(text, application_name=application_name).close()
        ReplicationConnection.connect(text, application_name=application_name).close()
    except PgbackupError as exc:
        return exc
    return None
