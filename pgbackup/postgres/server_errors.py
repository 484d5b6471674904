"""Turns what the server or libpq says into our errors, with the exact line or SQL that mends it.

Failures while connecting have no SQLSTATE in libpq's interface, so they are recognised by the server's untranslated
words; a server with translated messages still gets its own text shown, only without our hint.
"""

from __future__ import annotations

import re

import psycopg

from pgbackup.errors import ConnectionLost, PgbackupError, PostgresError, SlotBusy, WalGone

_NO_HBA = re.compile(r'no pg_hba\.conf entry for (replication connection from )?host "([^"]*)", user "([^"]*)"')
_NO_ROLE = re.compile(r'role "([^"]*)" does not exist')
_BAD_PASSWORD = re.compile(r'password authentication failed for user "([^"]*)"')


def from_connect(text: str, role: str = "") -> PgbackupError:
    """The error for a failed connection attempt of a role, from libpq's message."""
    text = clean(text).replace("failed to resolve host None", "failed to resolve the host that PGHOST names")
    if match := _NO_HBA.search(text):
        return _no_hba(text, bool(match[1]), match[2], match[3])
    if match := _BAD_PASSWORD.search(text):
        return PostgresError(
            "the server refused the password",
            detail=text,
            hint=f'Set PGPASSWORD (or PGPASSFILE) to the password of role "{match[1]}".',
        )
    if match := _NO_ROLE.search(text):
        return PostgresError(
            f'role "{match[1]}" does not exist',
            detail=text,
            hint="Create it with the SQL that `pgbackup init` prints, or run `pgbackup init --apply`.",
        )
    if "no password supplied" in text:
        return PostgresError("the server wants a password", detail=text, hint="Set PGPASSWORD or PGPASSFILE.")
    if lacks_replication(text):
        return missing_replication(text, role)
    if "number of requested standby connections exceeds" in text or "too many clients" in text:
        return ConnectionLost(
            "the server has no free connection", detail=text, hint="Raise max_wal_senders or max_connections."
        )
    return ConnectionLost("cannot connect to the server", detail=text, hint="Check PGHOST, PGPORT and that it runs.")


def from_result(sqlstate: str | None, text: str, role: str = "") -> PgbackupError:
    """The error for a failed command or a broken stream of a role, from its SQLSTATE and message."""
    text = clean(text)
    if sqlstate == "55006" and "is active" in text:
        return SlotBusy("the replication slot is in use", detail=text, hint="Stop the other pgbackup on this slot.")
    if "has already been removed" in text or (sqlstate == "55000" and "can no longer" in text):
        return WalGone("the server no longer has this WAL", detail=text)
    if sqlstate == "42501" and lacks_replication(text):
        return missing_replication(text, role)
    if sqlstate == "42501" and "pg_read_all_settings" in text:
        return PostgresError(
            "the role may not read the server's settings",
            detail=text,
            hint=f"Run as a superuser: GRANT pg_monitor TO {_quoted(role)}; (`pgbackup init` prints the whole SQL).",
        )
    if sqlstate == "53400" or "all replication slots are in use" in text:
        return PostgresError(
            "the server has no free replication slot", detail=text, hint="Raise max_replication_slots and restart it."
        )
    if sqlstate is None or sqlstate[:2] in {"08", "57"}:
        return ConnectionLost("the connection to the server broke", detail=text)
    return PostgresError("the server refused", detail=f"{text} (SQLSTATE {sqlstate})")


def is_for_loopback_only(refusal: PgbackupError, client_address: str) -> bool:
    """Whether replication is refused from another machine or container, as the rules of a new cluster have it."""
    match = _NO_HBA.search(refusal.detail)
    return bool(match and match[1]) and bool(client_address) and not client_address.startswith(("127.", "::1"))


def lacks_replication(text: str) -> bool:
    return (
        "must be superuser or replication role" in text
        or "permission denied to start WAL sender" in text
        or "permission denied to use replication slots" in text
    )


def missing_replication(text: str, role: str) -> PostgresError:
    return PostgresError(
        "the role may not replicate",
        detail=text,
        hint=f"Run as a superuser: ALTER ROLE {_quoted(role)} REPLICATION; (`pgbackup init` prints the whole SQL).",
    )


def _quoted(role: str) -> str:
    return '"' + role.replace('"', '""') + '"' if role else "<role>"


def role_of(exc: psycopg.Error) -> str:
    """As whom a failed attempt to connect came; empty when that is not known."""
    return (exc.pgconn.user if exc.pgconn is not None else b"").decode("utf-8", "replace")


def clean(text: str) -> str:
    """A message on one line, without libpq's trailing newline."""
    return "; ".join(line.strip() for line in text.strip().splitlines() if line.strip())


def _no_hba(text: str, replication: bool, host: str, user: str) -> PostgresError:
    database = "replication" if replication else "postgres"
    local = host.startswith("[local]") or not host
    where = "local" if local else "host"
    address = "" if local else f"  {host}/{128 if ':' in host else 32}"
    line = f"{where}  {database}  {user}{address}  scram-sha-256"
    return PostgresError(
        "pg_hba.conf lets no such connection in",
        detail=text,
        hint=f"Add this line to pg_hba.conf and reload the server: {line}",
    )
