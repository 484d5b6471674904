"""What `expire` and `delete` show of an expiry: the plan with its reasons, what was done, and both as one document."""

from __future__ import annotations

from datetime import tzinfo
from typing import TYPE_CHECKING

from pgbackup.cli.output import say, table, time_text
from pgbackup.core.size_text import size_text
from pgbackup.count_text import counted
from pgbackup.errors import CheckFailed

if TYPE_CHECKING:
    from pgbackup.core.retention import ExpiryPlan, Verdict, WalRange
    from pgbackup.engines.expire.expire import ExpiryReport, Look
    from pgbackup.engines.expire.objects import Removed

_COLUMNS = ("backup", "finished", ">stored", "", "reasons")


def raise_refusal(plan: ExpiryPlan) -> None:
    """Raise CheckFailed for a plan that refuses."""
    if plan.refusal:
        raise CheckFailed(f"expiry removes nothing: {plan.refusal}", hint=plan.hint)


def print_plan(seen: Look, found: Removed, zone: tzinfo) -> None:
    """The plan as people read it."""
    plan = seen.plan
    if plan.backups:
        table(_COLUMNS, [_row(verdict, plan, zone) for verdict in plan.backups])
    else:
        say("no backups")
    for each in plan.wal:
        say(f"  WAL of timeline {each.timeline}: {_wal_text(each, seen.catalog.segment_bytes)}")
    for timeline in plan.histories:
        say(f"  the history of timeline {timeline}: no later branch that is kept needs it")
    if plan.marks:
        say(f"  {counted(len(plan.marks), 'time mark')}, older than everything kept")
    if seen.unfinished:
        say(f"  what an interrupted expiry left of {', '.join(seen.unfinished)}")
    if not plan.is_empty or seen.unfinished:
        say(f"to remove: {counted(found.objects, 'object')}, {size_text(found.bytes)}")


def _row(verdict: Verdict, plan: ExpiryPlan, zone: tzinfo) -> tuple[object, ...]:
    backup = verdict.backup
    fate = "keep" if verdict.keep or plan.refusal else "remove"
    reasons = ", ".join(verdict.reasons) if verdict.keep or not plan.refusal else "nothing is removed now"
    if verdict.problem:
        reasons += f" ({verdict.problem})"
    stored = size_text(backup.stored_bytes) if backup.stored_bytes else "-"  # WAL-E does not say it
    return backup.name, time_text(backup.finished, zone), stored, fate, reasons


def _wal_text(each: WalRange, segment_bytes: int) -> str:
    from pgbackup.core.lsn import SegmentName

    first, last = (SegmentName(each.timeline, number, segment_bytes) for number in (each.oldest, each.newest))
    count = counted(each.segments, "segment") + (f" and {each.tails} open" if each.tails else "")
    size = size_text((each.segments + each.tails) * segment_bytes)
    return f"remove {first} to {last}, {count}, {size} before compression; it ends at: {each.reason}"


def print_report(report: ExpiryReport) -> None:
    """What an expiry did."""
    removed = report.removed
    backups, objects = counted(len(report.backups), "backup"), counted(removed.objects, "object")
    say(f"removed: {backups}, {objects}, {size_text(removed.bytes)}")
    _print_retained(removed)


def print_removed(removed: Removed) -> None:
    """What was removed without a plan."""
    say(f"removed: {counted(removed.objects, 'object')}, {size_text(removed.bytes)}")
    _print_retained(removed)


def _print_retained(removed: Removed) -> None:
    if removed.retained:
        first = f"first {removed.first_retained} ({removed.why_retained})"
        say(f"retained by the store: {counted(removed.retained, 'object')}, {first}")


def expiry_document(seen: Look, found: Removed, report: ExpiryReport | None) -> dict[str, object]:
    """Plan and report as one document."""
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
