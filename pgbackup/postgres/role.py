"""The role that pgbackup connects as: LOGIN, REPLICATION, pg_monitor, nothing more, and never superuser.

``plan_role`` and ``hba_lines`` are pure; ``apply_plan`` runs what was planned, as an administrator. pg_hba.conf cannot
be written over a connection, so its lines are only ever shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from pgbackup.errors import ConfigError, PostgresError
from pgbackup.postgres.session import Session

DEFAULT_ROLE = "pgbackup"
SLOT_LIMIT = "16GB"
UNLIMITED = "-1"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "localhost.localdomain"})
_PLAIN_NAME = re.compile(r"^[a-z_][a-z0-9_]*$")
_HBA_WORDS = frozenset({"all", "sameuser", "samerole", "samegroup", "replication"})
_TLS_MODES = frozenset({"require", "verify-ca", "verify-full"})

_ROLE = """
SELECT rolcanlogin, rolreplication, rolsuper,
       EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                WHERE m.member = r.oid AND g.rolname = 'pg_monitor')
  FROM pg_roles r WHERE rolname = %s
"""


@dataclass(frozen=True, slots=True)
class Target:
    """Who connects to where, as the connection string and libpq's variables say; no host means a local socket."""

    role: str
    database: str
    hosts: tuple[str, ...]
    requires_tls: bool
    password: str = ""

    def __repr__(self) -> str:
        return f"Target({self.role!r}, {self.database!r}, {self.hosts!r})"


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """What a role that exists may do."""

    can_login: bool
    replication: bool
    superuser: bool
    monitor: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One statement, and what it is for."""

    statement: str
    purpose: str


def target_of(conninfo: str, environ: Mapping[str, str], role: str | None = None) -> Target:
    """Read a connection string as libpq would. Raises ConfigError when libpq cannot."""
    try:
        given = {key: str(value) for key, value in conninfo_to_dict(conninfo).items() if value is not None}
    except psycopg.Error as exc:
        # libpq quotes what it did not understand, which may be a password.
        raise ConfigError("PGBACKUP_DSN is not a connection string that libpq reads") from exc
    hosts = given.get("hostaddr") or given.get("host") or environ.get("PGHOST") or ""
    return Target(
        role=role or given.get("user") or environ.get("PGUSER") or DEFAULT_ROLE,
        database=given.get("dbname") or environ.get("PGDATABASE") or "postgres",
        hosts=tuple(host for host in hosts.split(",") if host and host[0] not in "/@"),
        requires_tls=(given.get("sslmode") or environ.get("PGSSLMODE", "")) in _TLS_MODES,
        password=given.get("password", ""),
    )


def plan_role(role: str, facts: RoleFacts | None = None) -> list[Change]:
    """What makes the role, or what an existing one lacks; nothing is ever taken away."""
    name = _quoted(role)
    changes = []
    if facts is None:
        changes.append(Change(f"CREATE ROLE {name} LOGIN REPLICATION", f"create role {role}"))
    elif not (facts.can_login and facts.replication):
        changes.append(Change(f"ALTER ROLE {name} LOGIN REPLICATION", f"let role {role} log in and replicate"))
    if facts is None or not facts.monitor:
        changes.append(Change(f"GRANT pg_monitor TO {name}", f"let role {role} read positions and settings"))
    return changes


def plan_slot_limit(current: str, wanted: str = SLOT_LIMIT) -> list[Change]:
    """A bound on the WAL that a slot may hold back: without one a dead pgbackup fills the server's disk."""
    if current != UNLIMITED:
        return []
    value = sql.Literal(wanted).as_string(None)
    return [
        Change(
            f"ALTER SYSTEM SET max_slot_wal_keep_size = {value}", f"let no slot hold back more than {wanted} of WAL"
        ),
        Change("SELECT pg_reload_conf()", "make the server read that"),
    ]


def hba_lines(target: Target, client_address: str) -> list[str]:
    """The lines of pg_hba.conf that let the role in, for WAL and base backups, and for SQL."""
    role, database = _hba_name(target.role), _hba_name(target.database)
    places = [("local", "")] if not target.hosts else []
    kind = "hostssl" if target.requires_tls else "host"
    if any(is_loopback(host) for host in target.hosts):
        places += [(kind, "127.0.0.1/32"), (kind, "::1/128")]
    if not all(is_loopback(host) for host in target.hosts):
        places.append((kind, client_address))
    return [
        f"{where:<8} {what:<12} {role:<12} {address:<24} scram-sha-256".replace(" " * 26, "  ")
        for where, address in places
        for what in ("replication", database)
    ]


def is_loopback(host: str) -> bool:
    return host in _LOOPBACK


def network_of(address: str) -> str:
    """An address as pg_hba.conf wants it, with its mask."""
    return address if "/" in address else f"{address}/{128 if ':' in address else 32}"


# -- doing it -----------------------------------------------------------------------------------------------------


def role_facts(session: Session, role: str) -> RoleFacts | None:
    """What a role may do, or None when there is none of that name."""
    rows = session.query(_ROLE, (role,))
    return RoleFacts(*rows[0]) if rows else None


def require_primary(session: Session) -> None:
    """Raise PostgresError on a standby, where no role can be made."""
    if session.query("SELECT pg_is_in_recovery()")[0][0]:
        raise PostgresError(
            "this server is a standby: roles are made on the primary",
            hint="Name the primary with --admin-dsn or PGBACKUP_ADMIN_DSN.",
        )


def apply_plan(session: Session, changes: Sequence[Change]) -> None:
    """Run statements in order. Raises PostgresError that names the one that was refused, and what is needed."""
    for change in changes:
        try:
            session.query(change.statement)
        except PostgresError as exc:
            raise PostgresError(
                f"cannot {change.purpose}",
                detail=str(exc),
                hint="Connect as a superuser: name one with --admin-dsn or PGBACKUP_ADMIN_DSN.",
            ) from exc


def set_password(session: Session, role: str, password: str) -> None:
    """Give the role a password as libpq's \\password does: only its SCRAM verifier goes to the server."""
    verifier = session.connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    literal = sql.Literal(verifier.decode()).as_string(session.connection)
    apply_plan(session, [Change(f"ALTER ROLE {_quoted(role)} PASSWORD {literal}", f"set the password of role {role}")])


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)


def _hba_name(name: str) -> str:
    if _PLAIN_NAME.match(name) and name not in _HBA_WORDS:
        return name
    return '"' + name.replace('"', '""') + '"'
