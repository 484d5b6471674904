"""The server's half of `pgbackup check`: version, rights, pg_hba.conf, settings, slot, standbys.

Our role may not read pg_hba.conf, so the lines in it are proven by connecting in both ways.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

from pgbackup.core.lsn import MIB
from pgbackup.engines.check.directory import check_directory
from pgbackup.engines.check.report import CheckReport
from pgbackup.errors import PgbackupError, PostgresError
from pgbackup.postgres.replication import ReplicationConnection
from pgbackup.postgres.role import Target, hba_lines
from pgbackup.postgres.server_checks import (
    RoleRights,
    ServerState,
    SynchronousNames,
    look,
    parse_synchronous_names,
    role_rights,
)
from pgbackup.postgres.server_errors import is_for_loopback_only
from pgbackup.postgres.session import ServerFacts, Session, SlotFacts

OLDEST_MAJOR, NEWEST_MAJOR = 14, 18
SMALL_SLOT_LIMIT_MB = 1024
_LIMIT_HINT = (
    "As a superuser: ALTER SYSTEM SET max_slot_wal_keep_size = '16GB'; SELECT pg_reload_conf(); "
    "(`pgbackup init --apply` does it; about half of what is free is a good size)."
)


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """What of the settings concerns the server; ``wal_flush_interval`` None: whole segments are shipped only."""

    conninfo: str
    application_name: str
    slot: str
    wal_flush_interval: timedelta | None

    @property
    def own_names(self) -> tuple[str, ...]:
        """What our own connections call themselves; none of them is a standby."""
        name = self.application_name
        return name, f"{name}-base", f"{name}-sql", "pgbackup-backup"


@dataclass(frozen=True, slots=True)
class ServerLook:
    """What the other half compares with."""

    facts: ServerFacts
    state: ServerState
    slot: SlotFacts | None


def check_server(report: CheckReport, request: ServerRequest) -> ServerLook | None:
    """Add the server's lines; None when it could not be asked."""
    found: ServerLook | None = None
    try:
        with Session.connect(request.conninfo, application_name=f"{request.application_name}-check") as session:
            _check_role(report, role := role_rights(session))
            if role.may_read_state:
                found = ServerLook(session.facts(), look(session, request.own_names), session.slot(request.slot))
    except PgbackupError as exc:
        report.failure("server connection", str(exc), exc.hint)
        return None
    synchronous_commit = _check_replication_connection(report, request, role, found)
    if found is None:
        return None
    _check_identity(report, found.facts)
    check_directory(report, found.facts)
    _check_transport(report, found.state)
    _check_wal_level(report, found.state)
    _check_capacity(report, found)
    _check_slot(report, request.slot, found.slot)
    _check_slot_limits(report, found.state)
    _check_standbys(report, found.state)
    _check_durability(report, found.state)
    _check_zero_loss(report, request, found.state, synchronous_commit)
    _check_archiving(report, found.state)
    return found


def _check_identity(report: CheckReport, facts: ServerFacts) -> None:
    kind = "standby" if facts.in_recovery else "primary"
    report.ok("server connection", f"{kind}, system identifier {facts.system_identifier}, timeline {facts.timeline}")
    version = f"{facts.major}.{facts.version_num % 10000}"
    if facts.major < OLDEST_MAJOR:
        report.failure("server version", f"PostgreSQL {version} is too old", f"Upgrade to {OLDEST_MAJOR} or later.")
    elif facts.major > NEWEST_MAJOR:
        hint = "Try a restore before relying on it, or look for a newer pgbackup."
        report.warning("server version", f"PostgreSQL {version} is newer than this pgbackup knows", hint)
    else:
        report.ok("server version", f"PostgreSQL {version}, WAL segments of {facts.segment_bytes // MIB} MiB")


def _check_role(report: CheckReport, role: RoleRights) -> None:
    name = '"' + role.name.replace('"', '""') + '"'
    missing, statements = [], []
    if not (role.replication or role.superuser):
        missing.append("may not replicate")
        statements.append(f"ALTER ROLE {name} REPLICATION;")
    if not role.may_read_state:
        missing.append("is not a member of pg_monitor")
        statements.append(f"GRANT pg_monitor TO {name};")
    if missing:
        report.failure("role", f"role {role.name} {' and '.join(missing)}", f"As a superuser: {' '.join(statements)}")
    elif role.superuser:
        hint = "Use a role of its own, which `pgbackup init` makes."
        report.warning("role", f"role {role.name} is a superuser, which pgbackup does not need", hint)
    else:
        report.ok("role", f"role {role.name} has REPLICATION and pg_monitor, and no more")


def _stock_image_hint(role: RoleRights, state: ServerState) -> str:
    """A container's address changes, so the line names the network: whatever the server is directly connected to."""
    line = hba_lines(Target(role.name, "postgres", ("container",), requires_tls=state.tls), "samenet")[0]
    return (
        "The rules of the stock postgres image let replication in over the socket and loopback only. Share the folder "
        "/var/run/postgresql or the network of the server's container (network_mode: service:postgres), or add this "
        f"line to pg_hba.conf and reload the server: {' '.join(line.split())}"
    )


def _check_replication_connection(
    report: CheckReport, request: ServerRequest, role: RoleRights, found: ServerLook | None
) -> str:
    """Returns synchronous_commit as the server sets it; our SQL sessions set it to local themselves."""
    shown = ""
    with report.attempt("pg_hba.conf"):
        try:
            connection = ReplicationConnection.connect(
                request.conninfo, application_name=f"{request.application_name}-check"
            )
        except PostgresError as exc:
            if found is None or not is_for_loopback_only(exc, found.state.client_address):
                raise
            report.failure("pg_hba.conf", str(exc), _stock_image_hint(role, found.state))
            return shown
        with closing(connection):
            identity = connection.identify()
            shown = connection.show("synchronous_commit")
        if found is not None and identity.system_identifier != found.facts.system_identifier:
            hint = "Name one server, or set target_session_attrs=primary in the connection string."
            report.failure("pg_hba.conf", "two connections reached two different clusters", hint)
        else:
            report.ok("pg_hba.conf", "lets the role in for SQL and for replication")
    return shown


def _check_transport(report: CheckReport, state: ServerState) -> None:
    address = state.client_address
    if not address or address.startswith("127.") or address == "::1":
        report.ok("transport", "the connection stays on this machine")
    elif state.tls:
        report.ok("transport", "TLS")
    else:
        hint = "Set PGSSLMODE=verify-full (or sslmode in the connection string) unless the network is trusted."
        report.warning("transport", f"the connection from {address} is not encrypted", hint)


def _check_wal_level(report: CheckReport, state: ServerState) -> None:
    level = state.settings["wal_level"]
    if level in {"replica", "logical"}:
        report.ok("wal_level", level)
    else:
        hint = "As a superuser: ALTER SYSTEM SET wal_level = 'replica'; then restart the server."
        report.failure("wal_level", f"{level}: base backups and streaming need replica or logical", hint)


def _check_capacity(report: CheckReport, found: ServerLook) -> None:
    state = found.state
    senders, used = state.number("max_wal_senders"), state.senders_in_use
    if senders - used < 2:
        hint = "As a superuser: ALTER SYSTEM SET max_wal_senders = 10; then restart the server."
        status = report.warning if senders >= 2 else report.failure
        status("max_wal_senders", f"{used} of {senders} are in use; pgbackup needs 2 during a base backup", hint)
    else:
        report.ok("max_wal_senders", f"{used} of {senders} are in use")
    slots = state.number("max_replication_slots")
    if found.slot is None and state.slots_in_use >= slots:
        hint = "As a superuser: ALTER SYSTEM SET max_replication_slots = 10; then restart the server."
        report.failure("max_replication_slots", f"all {slots} are in use", hint)
    else:
        report.ok("max_replication_slots", f"{state.slots_in_use} of {slots} are in use")


def _check_slot(report: CheckReport, name: str, slot: SlotFacts | None) -> None:
    if slot is None:
        report.ok("slot", f"{name} does not exist yet: `pgbackup run` creates it")
    elif not slot.physical or slot.temporary:
        hint = "Choose another name with PGBACKUP_SLOT."
        report.failure("slot", f"{name} is not a persistent physical slot, so it is not ours", hint)
    elif slot.wal_status == "lost":
        hint = "`pgbackup run` makes it anew, records what is missing and takes a base backup at once."
        report.failure("slot", f"{name} is lost: the server has removed WAL that it needed", hint)
    elif slot.wal_status == "unreserved":
        hint = "Start `pgbackup run`, or find out why it does not keep up."
        report.warning("slot", f"{name} is about to be lost", hint)
    elif slot.active:
        report.ok("slot", f"{name} is in use, WAL is held from {slot.restart_lsn}")
    else:
        report.warning(
            "slot", f"{name} exists and nobody streams from it: WAL is kept from {slot.restart_lsn}",
            "Start `pgbackup run`, or drop the slot if it is not wanted: it holds WAL back on the server.",
        )  # fmt: skip


def _check_slot_limits(report: CheckReport, state: ServerState) -> None:
    limit = state.number("max_slot_wal_keep_size")
    if limit == -1:
        text = "-1: when pgbackup is away for long, WAL fills the server's disk and stops it"
        report.failure("max_slot_wal_keep_size", text, _LIMIT_HINT)
    elif limit < SMALL_SLOT_LIMIT_MB:
        text = f"{limit}MB: a short outage of the store loses the slot, and with it continuity"
        report.warning("max_slot_wal_keep_size", text, _LIMIT_HINT)
    else:
        report.ok("max_slot_wal_keep_size", f"{limit}MB; wal_keep_size {state.number('wal_keep_size')}MB")
    idle = state.settings.get("idle_replication_slot_timeout", "0")
    if idle != "0":
        hint = "As a superuser: ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();"
        report.warning(
            "idle_replication_slot_timeout", f"{idle}s: a slot that pgbackup does not use for so long is lost", hint
        )


def _check_standbys(report: CheckReport, state: ServerState) -> None:
    bare = state.standbys_without_slot
    if bare and state.number("wal_keep_size") == 0:
        text = f"{', '.join(bare)} streams without a slot, and wal_keep_size is 0: after a failover WAL may be missing"
        report.warning("standbys", text, "Give each standby a slot (primary_slot_name), or set wal_keep_size.")
    elif bare:
        report.ok("standbys", f"{', '.join(bare)} streams without a slot; wal_keep_size covers it")
    else:
        report.ok("standbys", "none streams without a slot")


def _check_durability(report: CheckReport, state: ServerState) -> None:
    off = [name for name in ("fsync", "full_page_writes") if state.settings.get(name) == "off"]
    if off:
        report.warning(
            "durability", f"{' and '.join(off)} is off: the server itself can lose or damage data in a crash",
            f"As a superuser: ALTER SYSTEM SET {off[0]} = on; SELECT pg_reload_conf();",
        )  # fmt: skip
    else:
        report.ok("durability", "fsync and full_page_writes are on")


def _check_zero_loss(report: CheckReport, request: ServerRequest, state: ServerState, commit: str) -> None:
    """Says what commits wait for; to wait is a choice, to wait by accident is not."""
    names = parse_synchronous_names(state.settings["synchronous_standby_names"])
    ours = request.application_name
    if request.wal_flush_interval is None:
        _check_whole_segments(report, ours, names)
        return
    seconds = request.wal_flush_interval.total_seconds()
    if not names.waits_for(ours):
        lost = f"up to {seconds:g} s and the time of an upload" if seconds else "up to the time of an upload"
        report.ok("zero loss", f"off: commits do not wait for the repository; {lost} can be lost")
    elif seconds:
        text = f"synchronous_standby_names includes {ours}: commits wait up to {seconds:g} s each"
        report.warning("zero loss", text, "Set PGBACKUP_WAL_FLUSH_INTERVAL=0, or take the name out.")
    elif not names.always_waits_for(ours):
        text = f"synchronous_standby_names lets a commit return without {ours}"
        report.warning("zero loss", text, f"Set synchronous_standby_names = '{ours}'.")
    elif commit in {"off", "local"}:
        text = f"synchronous_commit is {commit}: commits do not wait"
        report.warning("zero loss", text, "Set synchronous_commit = on; sessions that set it to local are not covered.")
    else:
        report.ok("zero loss", "on: commits wait for the repository (not those with synchronous_commit = local or off)")


def _check_whole_segments(report: CheckReport, ours: str, names: SynchronousNames) -> None:
    if names.waits_for(ours):
        text = f"synchronous_standby_names includes {ours}: commits wait until a whole WAL segment is full"
        report.failure("zero loss", text, "Take the name out: this engine ships whole segments only.")
    else:
        report.ok(
            "zero loss", "off: commits do not wait for the repository; what the open WAL segment holds can be lost"
        )


def _check_archiving(report: CheckReport, state: ServerState) -> None:
    mode = state.settings["archive_mode"]
    ships = state.settings.get("archive_command") not in ("", "(disabled)", None) or state.settings.get(
        "archive_library"
    )
    if mode == "off":
        report.ok("archiving", "archive_mode is off: pgbackup needs none")
    elif ships:
        report.ok("archiving", f"archive_mode is {mode} as well: pgbackup neither needs nor disturbs it")
    else:
        hint = "Set archive_mode = off and restart the server, or set archive_command."
        report.warning("archiving", f"archive_mode is {mode} without a command: WAL piles up on the server", hint)
