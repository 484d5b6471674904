"""``pgbackup delete``: a deletion in the words of WAL-E and WAL-G, under the guards of `pgbackup expire`.

Both dialects are read: ``--confirm`` stands before or behind the words, FULL, FIND_FULL and FORCE are WAL-G's, a
segment's name instead of a backup's is WAL-E's. Without ``--confirm`` nothing is removed, in both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from pgbackup.cli.cmd_expire import OpensExpiry
from pgbackup.cli.expiry_output import expiry_document, print_plan, print_removed, print_report, raise_refusal
from pgbackup.cli.output import emit_json, json_option, say
from pgbackup.cli.their_options import harmless, options_of_every_command, refused, tell_unused
from pgbackup.core.retention_request import Before, Chain, NotDeletable, Retain, oldest_to_keep, policy_for, starts_in
from pgbackup.core.size_text import size_text
from pgbackup.count_text import counted
from pgbackup.errors import CheckFailed

if TYPE_CHECKING:
    from pgbackup.core.backup import Backup
    from pgbackup.engines.expire.everything import Everything
    from pgbackup.engines.expire.expire import ExpiryRequest, Look

_USAGE = "write `delete retain [FULL|FIND_FULL] N`, `delete before [FIND_FULL] NAME|TIME` or `delete everything FORCE`"
_NOT_HERE = {
    "target": "one backup alone is not removed: make it impermanent and let `pgbackup expire` decide",
    "garbage": "what crashed backups left behind is removed by `pgbackup run` and `pgbackup expire`",
    "old-versions": "there are no backups of older layouts to remove",
}
_NAME = "base_"
_COUNT = re.compile(r"[0-9]{1,18}")
"""WAL-G's is a 64-bit number; Python's int() raises for thousands of digits."""


@click.command("delete")
@click.argument("words", nargs=-1, required=True, metavar="retain|before|everything ...")
@click.option("--confirm", is_flag=True, help="Remove what is shown; without it nothing is removed.")
@click.option("--after", "after", metavar="NAME|TIME", help="With retain: keep everything from here on as well.")
@click.option("-n", "--dry-run", is_flag=True, hidden=True)
@harmless("--use-sentinel-time", why="backups are always ordered by time")
@refused("--target-user-data", why="name the backup")
@options_of_every_command
@json_option
@click.pass_obj
def command(
    app: OpensExpiry, *, words: Sequence[str], confirm: bool, after: str | None, dry_run: bool, as_json: bool
) -> None:
    """Remove backups and their WAL as `wal-g delete` and `wal-e delete` are told to; a dry run unless --confirm.

    retain N keeps the newest N restorable backups, before NAME keeps that one and all later ones, everything FORCE
    keeps nothing. Chains stay whole, permanent backups stay, and what `pgbackup expire` would refuse is refused:
    exit 1. PGBACKUP_RETENTION_MIN_RESTORABLE counts, the other retention settings do not.
    """
    confirm = confirm and not dry_run
    if words[0] == "everything":
        _delete_everything(app, words[1:], confirm=confirm, as_json=as_json)
        return
    wanted = _parse(words, after, datetime.now(UTC))
    with app.open_expiry(apply=confirm, accept_missing=False) as request:
        tell_unused()
        _delete(request, wanted, confirm=confirm, as_json=as_json)


def _parse(words: Sequence[str], after: str | None, now: datetime) -> Retain | Before:
    """Raises click.UsageError."""
    mode, *rest = words
    if mode in _NOT_HERE:
        raise click.UsageError(f"delete {mode}: {_NOT_HERE[mode]}.")
    chain: Chain = "as named"
    if rest and rest[0] in ("FULL", "FIND_FULL"):
        chain = "FULL" if rest.pop(0) == "FULL" else "FIND_FULL"
    if mode not in ("retain", "before") or len(rest) != 1:
        raise click.UsageError(f"{_USAGE}.")
    if mode == "retain":
        if not _COUNT.fullmatch(rest[0]) or int(rest[0]) < 1:
            raise click.UsageError(f"retain {rest[0][:40]}: how many backups to keep is a whole number from 1.")
        return Retain(int(rest[0]), chain, None if after is None else _point(after, now))
    if chain == "FULL" or after is not None:
        raise click.UsageError(f"{_USAGE}.")
    return Before(_point(rest[0], now), chain)


def _point(text: str, now: datetime) -> str | datetime:
    """A backup's or segment's name as it stands, or a moment."""
    from pgbackup.core.lsn import is_segment_name
    from pgbackup.core.moment import parse_moment

    if text.startswith(_NAME) or is_segment_name(text):
        return text
    try:
        moment = parse_moment(text, now)
        if moment > now:
            raise ValueError(f"{text!r} lies in the future")
        return moment
    except ValueError as exc:
        raise click.UsageError(f"{text!r} is neither a backup's name nor a time: {exc}.") from exc


def _delete(request: ExpiryRequest, wanted: Retain | Before, *, confirm: bool, as_json: bool) -> None:
    from pgbackup.engines.expire.expire import measure, run_expiry

    seen = _look(request, wanted)
    if seen is None:
        say("No backup found for deletion", err=True)
        if as_json:
            emit_json({"backups": [], "applied": False})
        return
    request, plan = seen
    found = measure(request, plan)
    if not as_json:
        print_plan(plan, found, request.tz)
    report = run_expiry(request, plan) if confirm and not plan.plan.refusal else None
    if as_json:
        emit_json(expiry_document(plan, found, report))
    raise_refusal(plan.plan)
    if report is None:
        if not as_json:
            say("nothing to remove" if plan.plan.is_empty else "nothing was removed; --confirm removes")
        return
    if not as_json:
        print_report(report)
    if report.stopped:
        raise CheckFailed(f"the deletion ended early: {report.stopped}", hint="Give the command again.")


def _look(request: ExpiryRequest, wanted: Retain | Before) -> tuple[ExpiryRequest, Look] | None:
    """The request with the policy that the words come to, and the plan; None when there is nothing to remove."""
    from pgbackup.engines.expire.expire import look
    from pgbackup.repository.catalog_reader import read_catalog

    catalog = read_catalog(request.store, request.codec, with_marks=False)
    try:
        oldest = oldest_to_keep(catalog, wanted)
    except NotDeletable as exc:
        raise CheckFailed(f"nothing is removed: {exc}", hint=exc.hint) from exc
    if oldest is None:
        return None
    _tell_what_a_segment_means(wanted, oldest)
    policy = policy_for(catalog, oldest, min_restorable=request.policy.min_restorable)
    request = replace(request, policy=policy)
    seen = look(request)
    if not any(verdict.keep and verdict.backup.name == oldest.name for verdict in seen.plan.backups):
        raise CheckFailed("nothing is removed: the repository has changed meanwhile", hint="Give the command again.")
    return request, seen


def _tell_what_a_segment_means(wanted: Retain | Before, oldest: Backup) -> None:
    from pgbackup.core.lsn import is_segment_name

    point = wanted.point if isinstance(wanted, Before) else None
    if isinstance(point, str) and is_segment_name(point) and not starts_in(oldest, point):
        say(f"no backup starts in {point}: {oldest.name} stays, for a restore to there needs it", err=True)


def _delete_everything(app: OpensExpiry, words: Sequence[str], *, confirm: bool, as_json: bool) -> None:
    from pgbackup.engines.expire.everything import look_at_everything, remove_everything

    if list(words) not in ([], ["FORCE"]):
        raise click.UsageError(f"{_USAGE}.")
    with app.open_expiry(apply=confirm, accept_missing=True) as request:
        tell_unused()
        found = look_at_everything(request)
        if not as_json:
            _print_everything(found)
        why = _why_not(found, words)
        if why is None and confirm:
            removed, stopped = remove_everything(request)
        else:
            removed, stopped = None, ""
    if as_json:
        emit_json({"to_remove": found, "refusal": why or "", "applied": removed is not None, "removed": removed})
    if why is not None:
        raise CheckFailed(
            f"nothing is removed: {why}", hint="`delete everything FORCE --confirm` removes all the same."
        )
    if removed is None:
        if not as_json:
            say("nothing was removed; --confirm removes")
        return
    if not as_json:
        print_removed(removed)
    if stopped:
        raise CheckFailed(f"the deletion ended early: {stopped}")


def _why_not(found: Everything, words: Sequence[str]) -> str | None:
    if words:
        return None
    if found.permanent:
        return f"there are permanent backups: {', '.join(found.permanent[:3])}"
    if found.restorable:
        return f"{found.restorable[-1]} can be restored, and would be gone"
    return None


def _print_everything(found: Everything) -> None:
    say(
        f"to remove: all there is, {counted(found.objects, 'object')}, {size_text(found.bytes)}, "
        f"{counted(len(found.restorable), 'restorable backup')} among them and "
        f"{counted(len(found.permanent), 'permanent one')}"
    )
