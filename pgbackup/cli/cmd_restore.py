"""``pgbackup restore``: a directory that recovers to any moment, or the plan of it, or why that cannot be."""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgbackup.cli.output import duration_text, emit_json, json_option, say
from pgbackup.cli.restore_target import check_clock, target_of
from pgbackup.core.size_text import size_text
from pgbackup.errors import ConfigError, CorruptObject, RestoreError

if TYPE_CHECKING:
    from pgbackup.app import App
    from pgbackup.core.recovery_plan import RecoveryPlan
    from pgbackup.engines.restore.restore import Restore, RestoreRequest, RestoreResult

_AT_THE_TARGET = {
    "pause": (
        "It stops at the target and answers queries: SELECT pg_wal_replay_resume() ends recovery and promotes it.",
    ),
    "shutdown": (
        "It shuts down at the target. To use it, set recovery_target_action = 'promote' at the end of its "
        "postgresql.auto.conf, and start it again.",
    ),
}
_AFTERWARDS = (
    "Not restored: replication slots, the content of unlogged tables, statistics.",
    "Start `pgbackup run` for the new server at once: it makes its slot and takes this branch's first base backup.",
    "If this machine has another C library than the original, watch for collation version warnings and reindex.",
)


@click.command("restore")
@click.option(
    "--target",
    "directory",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The data directory to make: empty, or not there yet.",
)
@click.option("--to", "to_time", metavar="TIME", help="To a moment: ISO 8601 with a zone, or '10 minutes ago'.")
@click.option("--to-lsn", metavar="LSN", help="To a WAL position, like 16/B374D848.")
@click.option("--to-xid", metavar="XID", help="To a transaction.")
@click.option("--to-name", metavar="NAME", help="To a restore point.")
@click.option("--immediate", is_flag=True, help="To the end of the backup, no further.")
@click.option("--latest", is_flag=True, help="To the end of the archive. The default.")
@click.option("--exclusive", is_flag=True, help="Stop before the time, LSN or transaction, not after it.")
@click.option(
    "--target-action",
    type=click.Choice(["promote", "pause", "shutdown"]),
    default="promote",
    show_default=True,
    help="What the server does at the target.",
)
@click.option("--backup", metavar="NAME", help="Begin with this base backup.")
@click.option("--timeline", type=click.IntRange(1), metavar="T", help="Recover along this timeline.")
@click.option("--accept-loss", is_flag=True, help="Recover although WAL is missing that had been archived.")
@click.option(
    "--wal",
    type=click.Choice(["staged", "on-demand"]),
    default=None,
    help="Put the WAL into the directory (the default), or fetch it during recovery.",
)
@click.option("--no-scan", is_flag=True, help="Do not read WAL to prove that the target is in it.")
@click.option(
    "--tablespace-map",
    "tablespaces",
    multiple=True,
    metavar="OLD=NEW",
    help="Put the tablespace that lay at OLD, or has the OID OLD, to NEW. May be repeated.",
)
@click.option("--no-sync-standby", is_flag=True, help="Clear synchronous_standby_names.")
@click.option("--no-archive", is_flag=True, help="Turn archiving off: for a copy of a server that lives on.")
@click.option("--timezone", "zone_name", metavar="ZONE", help="Zone of a --to that names none.")
@click.option("--jobs", type=click.IntRange(1, 16), default=None, help="Objects read at once, else by the settings.")
@click.option("--plan", "plan_only", is_flag=True, help="Print what would be done, and stop.")
@json_option
@click.pass_obj
def command(app: App, /, directory: Path, *, plan_only: bool, as_json: bool, **options: Any) -> None:
    """Restore a base backup into DIR, so that a server started there recovers to the target.

    Nothing is overwritten, and a restore that cannot succeed is refused before anything is written, with what could.
    """
    from pgbackup.cli.progress import open_progress
    from pgbackup.engines.restore.restore import Restore
    from pgbackup.repository.catalog_reader import read_for_restore
    from pgbackup.repository.key_check import key_problem

    request = _request(app, directory, options)
    store, codec = app.open_readonly_store(), app.codec()
    check_clock(store, options["to_time"] or "")
    restore = Restore(store, codec, read_for_restore(store, codec), request, open_progress(), engine=app.engine())
    try:
        plan = restore.plan()
    except (CorruptObject, RestoreError) as exc:
        if why := key_problem(store, codec):
            raise ConfigError(why, hint="Set PGBACKUP_ENCRYPTION_KEY to the repository's key.") from exc
        raise
    if plan_only:
        # People see the plan and then why it cannot be; a document is one of the two.
        if not as_json:
            _print_plan(restore, plan, as_json=False)
        restore.check_space(plan)
        if as_json:
            _print_plan(restore, plan, as_json=True)
        return
    if not as_json:
        _print_plan(restore, plan, as_json=False)
    _print_result(restore.run(plan), as_json=as_json)


def _request(app: App, directory: Path, options: dict[str, Any]) -> RestoreRequest:
    from pgbackup.engines.restore.commands import carried_environment
    from pgbackup.engines.restore.restore import RestoreRequest

    return RestoreRequest(
        directory=Path(os.path.normpath(Path.cwd() / directory)),
        target=target_of(app, options),
        backup=options["backup"],
        timeline=options["timeline"],
        accept_loss=options["accept_loss"],
        staged=None if options["wal"] is None else options["wal"] == "staged",
        scan=not options["no_scan"],
        tablespace_map=_tablespaces(options["tablespaces"]),
        without_sync_standbys=options["no_sync_standby"],
        without_archiving=options["no_archive"],
        threads=options["jobs"] or app.settings.download_concurrency,
        repository=app.repository_url(ask_server=False),
        environ=carried_environment(
            os.environ,
            config=app.settings.toml,
            transform=app.settings.encryption_key_transform,
            accepted=[name for name in ("accept_unencrypted", "accept_gnupg") if getattr(app.settings, name)],
            engine=app.settings.engine,
            tool=app.tool_program(),
        ),
    )


def _tablespaces(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        old, separator, new = pair.partition("=")
        if not separator or not old or not new:
            raise click.UsageError(f"--tablespace-map {pair!r}: write OLD=NEW.")
        found[old] = new
    return found


def _print_plan(restore: Restore, plan: RecoveryPlan, *, as_json: bool) -> None:
    from pgbackup.core.recovery_report import plan_document, plan_lines

    download = restore.download_bytes(plan)
    if as_json:
        document = plan_document(plan, staged=restore.staged)
        emit_json({**document, "download_bytes": download, "directory": str(restore.place(plan).directory)})
        return
    rows = plan_lines(plan, staged=restore.staged)
    rows.append(("download", f"about {size_text(download)}"))
    place = restore.place(plan)
    where = f"{place.directory}{' and the tablespaces' if place.tablespaces else ''}"
    rows.append(("space", f"{size_text(plan.space_bytes(staged=restore.staged))} in {where}"))
    for oid, path in place.tablespaces.items():
        rows.append(("tablespace", f"{oid} to {path}"))
    for later in plan.later_tablespaces:
        rows.append(("tablespace", f"{later.oid} to {later.location}, by recovery: it is younger than the backup"))
    for label, text in rows:
        say(f"{label + ':':12}{text}")
    for note in plan.notes:
        say(f"{'note:':12}{note}")


def _print_result(result: RestoreResult, *, as_json: bool) -> None:
    afterwards = [*_AT_THE_TARGET.get(result.plan.target.action, ()), *_AFTERWARDS]
    if as_json:
        from pgbackup.core.recovery_report import plan_document

        emit_json({
            "directory": str(result.directory), "seconds": round(result.seconds, 3), "raw_bytes": result.raw_bytes,
            "verified": result.verified, "notes": list(result.notes), "afterwards": afterwards,
            "plan": plan_document(result.plan, staged=result.staged),
        })  # fmt: skip
        return
    rate = size_text(round(result.raw_bytes / max(result.seconds, 0.001)))
    checked = "every file checked against the manifest" if result.verified else "not checked against a manifest"
    say(
        f"Restored {size_text(result.raw_bytes)} into {result.directory} in {duration_text(result.seconds)} "
        f"({rate}/s), {checked}."
    )
    for note in result.notes[len(result.plan.notes) :]:
        say(f"{'note:':12}{note}")
    say(f"Start it{_as_owner(result.directory)} with: pg_ctl -D {shlex.quote(str(result.directory))} start")
    for line in afterwards:
        say(line)


def _as_owner(directory: Path) -> str:
    """As whom to start it, where that is not us: pg_ctl does not run as root."""
    owner = directory.stat().st_uid
    if os.geteuid() != 0 or owner == 0:
        return ""
    try:
        return f", as {pwd.getpwuid(owner).pw_name},"
    except KeyError:
        return f", as user {owner},"
