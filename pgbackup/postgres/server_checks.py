"""What `pgbackup check` asks of a server, in as many queries as there are views; the judgement is made elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pgbackup.postgres.session import Session

_SETTINGS = (
    "archive_command", "archive_library", "archive_mode", "archive_timeout", "fsync", "full_page_writes",
    "idle_replication_slot_timeout", "max_replication_slots", "max_slot_wal_keep_size", "max_wal_senders",
    "synchronous_standby_names",
    "wal_keep_size", "wal_level",
)  # fmt: skip

_ROLE = """
SELECT r.rolname::text, r.rolsuper, r.rolreplication, pg_has_role(r.oid, 'pg_monitor', 'USAGE')
  FROM pg_roles r WHERE r.rolname = current_user
"""

_CONNECTION = """
SELECT coalesce(host(inet_client_addr()), ''),
       coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)
"""

_USAGE = """
SELECT (SELECT count(*) FROM pg_stat_replication), (SELECT count(*) FROM pg_replication_slots)
"""

_BARE_STANDBYS = """
SELECT DISTINCT coalesce(nullif(r.application_name, ''), host(r.client_addr), 'a standby')
  FROM pg_stat_replication r
 WHERE r.state IN ('streaming', 'catchup')
   AND r.application_name <> ALL (%s)
   AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid)
 ORDER BY 1
"""

_NAME = re.compile(r'"((?:[^"]|"")+)"|([A-Za-z_][\w$]*|\*)')
_NUMBER_OF = re.compile(r"^\s*(?:(FIRST|ANY)\s+)?(\d+)\s*\((.*)\)\s*$", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class RoleRights:
    """Who we are to the server."""

    name: str
    superuser: bool
    replication: bool
    monitor: bool

    @property
    def may_read_state(self) -> bool:
        """Whether the rest can be asked at all."""
        return self.monitor or self.superuser


@dataclass(frozen=True, slots=True)
class ServerState:
    """Everything else that is asked: settings as pg_settings shows them (in their base units), what is in use."""

    settings: dict[str, str]
    client_address: str
    tls: bool
    senders_in_use: int
    slots_in_use: int
    standbys_without_slot: tuple[str, ...]
    clock_ahead: timedelta
    """How far the server's clock is ahead of this machine's."""

    def number(self, name: str) -> int:
        return int(self.settings.get(name, "0"))


def role_rights(session: Session) -> RoleRights:
    """What our role may do; every role may ask that."""
    return RoleRights(*session.query(_ROLE)[0])


def look(session: Session, own_names: tuple[str, ...]) -> ServerState:
    """Ask the server. ``own_names``: application names that are not standbys but ours."""
    settings = session.query("SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (list(_SETTINGS),))
    address, tls = session.query(_CONNECTION)[0]
    senders, slots = session.query(_USAGE)[0]
    bare = session.query(_BARE_STANDBYS, (list(own_names),))
    return ServerState(
        settings=dict(settings),
        client_address=address,
        tls=tls,
        senders_in_use=senders,
        slots_in_use=slots,
        standbys_without_slot=tuple(row[0] for row in bare),
        clock_ahead=_clock_ahead(session),
    )


def _clock_ahead(session: Session) -> timedelta:
    before = datetime.now(UTC)
    moment: datetime = session.query("SELECT clock_timestamp()")[0][0]
    after = datetime.now(UTC)
    return moment - (before + (after - before) / 2)


@dataclass(frozen=True, slots=True)
class SynchronousNames:
    """synchronous_standby_names: how many of ``names`` a commit waits for, the first ones or any."""

    wanted: int
    names: tuple[str, ...]
    any_of_them: bool

    def waits_for(self, name: str) -> bool:
        """Whether a commit may be made to wait for a standby of that name; the server compares without case."""
        return any(each == "*" or each.lower() == name.lower() for each in self.names)

    def always_waits_for(self, name: str) -> bool:
        """Whether no commit can return without it."""
        listed = [each.lower() for each in self.names]
        if "*" in listed or name.lower() not in listed:
            return False
        return self.wanted >= len(listed) or (not self.any_of_them and name.lower() in listed[: self.wanted])


def parse_synchronous_names(text: str) -> SynchronousNames:
    """Read the setting's value, which the server has checked."""
    match = _NUMBER_OF.match(text)
    wanted = int(match[2]) if match else 1
    any_of_them = bool(match and (match[1] or "").upper() == "ANY")
    listed = [quoted.replace('""', '"') or bare for quoted, bare in _NAME.findall(match[3] if match else text)]
    return SynchronousNames(wanted, tuple(listed), any_of_them)
