"""``pgbackup expire``: what the retention policy keeps and removes, and why; removed only when asked to."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import tzinfo
from typing import TYPE_CHECKING, Protocol

import click

from pgbackup.cli.output import emit_json, json_option, size_text, table, time_text
from pgbackup.errors import CheckFailed

if TYPE_CHECKING:
    from pgbackup.core.retention import ExpiryPlan, Verdict, WalRange
    from pgbackup.engines.native.expire import ExpiryReport, ExpiryRequest, Look
    from pgbackup.engines.native.expire_objects import Removed

_COLUMNS = ("backup", "finished", ">stored", "", "reasons")


class OpensExpiry(Protocol):
    """What this command needs of the App."""

    def open_expiry(self, *, apply: bool, accept_missing: bool) -> AbstractContextManager[ExpiryRequest]:
        """The repository, read-only unless ``apply``, with the policy and the lease."""


@click.command("expire")
@click.option("--apply", is_flag=True, help="Remove what the plan says; without it nothing is removed.")
@click.option("--accept-missing", is_flag=True, help="Backups that are gone since the last expiry were meant to go.")
@json_option
@click.pass_obj
def command(app: OpensExpiry, *, apply: bool, accept_missing: bool, as_json: bool) -> None:
    """Show which backups and which WAL the retention policy keeps and removes, and why.

    With --apply it removes them: first the seal of a backup, then its objects, then WAL that nothing needs any more.
    Exit 1 when expiry refuses, because the repository does not look healthy, or ended early.
    """
    from pgbackup.engines.native.expire import look, measure, run_expiry

    with app.open_expiry(apply=apply, accept_missing=accept_missing) as request:
        seen = look(request)
        found = measure(request, seen)
        if not as_json:
            _print_plan(seen, found, request.tz)
        report = run_expiry(request, seen) if apply and not seen.plan.refusal else None
    if as_json:
        emit_json(_document(seen, found, report))
    _raise_refusal(seen.plan)
    if report is None:
        if not as_json:
            is_empty = seen.plan.is_empty and not seen.unfinished
            click.echo("nothing to remove" if is_empty else "nothing was removed; --apply removes")
        return
    if not as_json:
        _print_report(report)
    if report.stopped:
        raise CheckFailed(
            f"expiry ended early: {report.stopped}",
            hint="Run pgbackup expire again: it looks anew, and goes on where this one ended.",
        )


def _raise_refusal(plan: ExpiryPlan) -> None:
    if plan.refusal:
        raise CheckFailed(f"expiry removes nothing: {plan.refusal}", hint=plan.hint)


def _print_plan(seen: Look, found: Removed, zone: tzinfo) -> None:
    plan = seen.plan
    if plan.backups:
        table(_COLUMNS, [_row(verdict, plan, zone) for verdict in plan.backups])
    else:
        click.echo("no backups")
    for each in plan.wal:
        click.echo(f"  WAL of timeline {each.timeline}: {_wal_text(each, seen.catalog.segment_bytes)}")
    for timeline in plan.histories:
        click.echo(f"  the history of timeline {timeline}: no later branch that is kept needs it")
    if plan.marks:
        click.echo(f"  {len(plan.marks)} time marks, older than everything kept")
    if seen.unfinished:
        click.echo(f"  what an interrupted expiry left of {', '.join(seen.unfinished)}")
    if not plan.is_empty or seen.unfinished:
        click.echo(f"to remove: {found.objects} objects, {size_text(found.bytes)}")


def _row(verdict: Verdict, plan: ExpiryPlan, zone: tzinfo) -> tuple[object, ...]:
    backup = verdict.backup
    fate = "keep" if verdict.keep or plan.refusal else "remove"
    reasons = ", ".join(verdict.reasons) if verdict.keep or not plan.refusal else "nothing is removed now"
    if verdict.problem:
        reasons += f" ({verdict.problem})"
    return backup.name, time_text(backup.finished, zone), size_text(backup.stored_bytes), fate, reasons


def _wal_text(each: WalRange, segment_bytes: int) -> str:
    from pgbackup.core.lsn import SegmentName

    first, last = (SegmentName(each.timeline, number, segment_bytes) for number in (each.oldest, each.newest))
    count = f"{each.segments} segments" + (f" and {each.tails} open ones" if each.tails else "")
    size = size_text((each.segments + each.tails) * segment_bytes)
    return f"remove {first} to {last}, {count}, {size} before compression; it ends at: {each.reason}"


def _print_report(report: ExpiryReport) -> None:
    removed = report.removed
    click.echo(f"removed: {len(report.backups)} backups, {removed.objects} objects, {size_text(removed.bytes)}")
    if removed.retained:
        first = f"first {removed.first_retained} ({removed.why_retained})"
        click.echo(f"retained by the store: {removed.retained} objects, {first}")


def _document(seen: Look, found: Removed, report: ExpiryReport | None) -> dict[str, object]:
    plan = seen.plan
    return {
        "now": seen.now,
        "refusal": plan.refusal,
        "backups": [
            {
                "name": verdict.backup.name,
                "finished": verdict.backup.finished,
                "stored_bytes": verdict.backup.stored_bytes,
                "keep": verdict.keep or bool(plan.refusal),
                "reasons": verdict.reasons,
                "problem": verdict.problem,
            }
            for verdict in plan.backups
        ],
        "wal": plan.wal,
        "histories": plan.histories,
        "marks": len(plan.marks),
        "unfinished": seen.unfinished,
        "to_remove": {"objects": found.objects, "bytes": found.bytes},
        "applied": report is not None,
        "result": None if report is None else _result(report),
    }


def _result(report: ExpiryReport) -> dict[str, object]:
    removed = report.removed
    return {
        "backups": report.backups,
        "objects": removed.objects,
        "bytes": removed.bytes,
        "retained": {
            "objects": removed.retained,
            "first": removed.first_retained or None,
            "reason": removed.why_retained or None,
        },
        "stopped": report.stopped or None,
    }
