"""``pgbackup init``: prints, or runs, the SQL that makes pgbackup's role, and prints the lines for pg_hba.conf."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import click

from pgbackup.cli.output import emit_json, json_option, say

if TYPE_CHECKING:
    from pgbackup.app import App
    from pgbackup.errors import PgbackupError
    from pgbackup.postgres.role import Change, Target

_EXPLAIN_ADDRESS = "the address of this machine, as the server sees it"


@click.command("init")
@click.option("--apply", "do_apply", is_flag=True, help="Run the SQL instead of printing it.")
@click.option("--role", metavar="NAME", help="Name of the role; default: the user that pgbackup connects as.")
@click.option("--admin-dsn", metavar="DSN", help="How --apply connects; default: PGBACKUP_ADMIN_DSN, else libpq's own.")
@click.option("--client-address", metavar="ADDRESS", help="For pg_hba.conf: where pgbackup connects from.")
@click.option(
    "--slot-limit", metavar="SIZE", default="16GB", show_default=True,
    help="WAL that a slot may hold back, where nothing bounds it yet; about half of what is free is a good choice.",
)  # fmt: skip
@json_option
@click.pass_obj
def command(
    app: App,
    *,
    do_apply: bool,
    role: str | None,
    admin_dsn: str | None,
    client_address: str | None,
    slot_limit: str,
    as_json: bool,
) -> None:
    """Make the role that pgbackup needs: LOGIN, REPLICATION and pg_monitor, nothing more.

    Without --apply nothing is changed, and the server is not even asked. pg_hba.conf is never written: its lines are
    printed. Running it again changes nothing.
    """
    from pgbackup.postgres.role import hba_lines, network_of, target_of
    from pgbackup.postgres.role_login import why_not_let_in

    target = target_of(app.conninfo, os.environ, role)
    done: list[str] = []
    address, refusal = "", None
    if do_apply:
        done, address = _apply(app, admin_dsn, target, slot_limit)
        refusal = why_not_let_in(app.conninfo, target.role, application_name="pgbackup-init")
    address = client_address or address or _own_address(target.hosts)
    lines = hba_lines(target, network_of(address) if address else f"<{_EXPLAIN_ADDRESS}>")
    if as_json:
        statements = [] if do_apply else [change.statement for change in _whole_plan(target, slot_limit)]
        let_in = do_apply and refusal is None
        emit_json({"role": target.role, "statements": statements, "done": done, "pg_hba": lines, "let_in": let_in})
    elif do_apply:
        _print_done(done)
        if refusal is None:
            say(f"role {target.role} gets in, for SQL and for replication: nothing is left to do")
        else:
            _print_left(target, refusal)
            _print_hba(lines)
    else:
        _print_sql(target, slot_limit)
        _print_hba(lines)


def _whole_plan(target: Target, slot_limit: str) -> list[Change]:
    from pgbackup.postgres.role import UNLIMITED, plan_role, plan_slot_limit

    return plan_role(target.role) + plan_slot_limit(UNLIMITED, slot_limit)


def _apply(app: App, admin_dsn: str | None, target: Target, slot_limit: str) -> tuple[list[str], str]:
    """What was changed, and the address from which the server saw us."""
    from pgbackup.postgres.role import apply_plan, plan_role, plan_slot_limit, require_primary, role_facts, set_password
    from pgbackup.postgres.session import Session

    with Session.connect(admin_dsn or app.admin_conninfo, application_name="pgbackup-init") as session:
        require_primary(session)
        facts = role_facts(session, target.role)
        limit = str(session.query("SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'")[0][0])
        changes = plan_role(target.role, facts) + plan_slot_limit(limit, slot_limit)
        apply_plan(session, changes)
        done = [change.purpose for change in changes]
        if facts is None and target.password:
            set_password(session, target.role, target.password)
            done.append(f"set the password of role {target.role} to the one in PGBACKUP_DSN")
        if facts is not None and facts.superuser:
            say(f"warning: role {target.role} is a superuser, which pgbackup does not need", err=True)
        address = session.query("SELECT host(inet_client_addr())")[0][0]
    return done, str(address or "")


def _print_sql(target: Target, slot_limit: str) -> None:
    say("-- As a superuser, in psql. `pgbackup init --apply` does the same.")
    say()
    say("-- Commits of this session must not wait for the standby that pgbackup may become.")
    say("SET synchronous_commit = local;")
    say()
    for change in _whole_plan(target, slot_limit):
        say(f"-- {change.purpose}")
        say(f"{change.statement};")
    say()
    say("-- A password: psql asks for it, and sends only its hash.")
    say('\\password "{}"'.format(target.role.replace('"', '""')))


def _print_done(done: list[str]) -> None:
    for text in done or ["nothing to change: the role is as it should be, and something bounds the slots"]:
        say(text)


def _print_left(target: Target, refusal: PgbackupError) -> None:
    say()
    say(f"still to do: role {target.role} does not get in yet: {refusal}", indent=2)
    if not target.password:
        say(f"unless it comes in without one, give it a password (in psql: \\password {target.role})")


def _print_hba(lines: list[str]) -> None:
    say()
    say("-- In pg_hba.conf, above every line that would match first; then SELECT pg_reload_conf();")
    for line in lines:
        say(line)


def _own_address(hosts: tuple[str, ...]) -> str:
    """The address from which this machine would reach the server; empty when that is not known. Sends nothing."""
    from pgbackup.postgres.role import is_loopback

    for host in hosts:
        if is_loopback(host):
            continue
        try:
            found = socket.getaddrinfo(host, 5432, type=socket.SOCK_DGRAM)[0]
            with socket.socket(found[0], found[1]) as probe:
                probe.connect(found[4])
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return ""
