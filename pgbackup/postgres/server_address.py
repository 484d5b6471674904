"""Which server and database a connection string means, as a name for people: never a user, never a password."""

from __future__ import annotations

import psycopg

_PARTS = ("host", "port", "dbname")


def server_address(conninfo: str) -> str:
    """``db.example.org:5432/postgres``, with what libpq's own variables and defaults fill in; a socket is ``local``.

    Empty for a string that libpq does not read: whoever connects says what is wrong with it.
    """
    known = {option.keyword.decode(): option.val for option in psycopg.pq.Conninfo.get_defaults()}
    try:
        given = {option.keyword.decode(): option.val for option in psycopg.pq.Conninfo.parse(conninfo.encode())}
    except (psycopg.Error, UnicodeError):
        return ""
    host, port, database = ((given.get(part) or known.get(part) or b"").decode(errors="replace") for part in _PARTS)
    place = "local" if not host or host.startswith(("/", "@")) else host
    return f"{place}:{port}" + (f"/{database}" if database else "")
