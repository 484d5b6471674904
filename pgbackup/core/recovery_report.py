"""A restore plan as a document (``--json``) and as lines for people (``--plan``)."""

from __future__ import annotations

from pgbackup.core.found_damaged import FoundDamage
from pgbackup.core.recovery_plan import RecoveryPlan
from pgbackup.core.recovery_target import Target, time_text
from pgbackup.count_text import counted

_FILES_SHOWN = 3


def plan_document(plan: RecoveryPlan, *, staged: bool) -> dict[str, object]:
    """Everything of a plan as JSON values; keys are stable."""
    backup = plan.backup
    return {
        "backup": {
            "name": backup.name,
            "timeline": backup.timeline,
            "start_lsn": str(backup.start_lsn),
            "stop_lsn": str(backup.stop_lsn),
            "finished": backup.finished.isoformat(),
            "pg_version": backup.pg_version,
            "raw_bytes": backup.raw_bytes,
            "stored_bytes": backup.stored_bytes,
            "tablespaces": {str(t.oid): t.location for t in backup.tablespaces},
            "found_damaged": _damage(plan.damage),
        },
        "asked": _target(plan.asked),
        "target": _target(plan.target),
        "timeline": plan.timeline,
        "path": [
            {"timeline": timeline, "from": str(begin), "to": str(end) if end is not None else None}
            for timeline, begin, end in plan.history.path()
        ],
        "wal": {
            "mode": "staged" if staged else "on-demand",
            "end": str(plan.end),
            "bytes": plan.wal_bytes,
            "files": [{"name": str(f.segment), "source": f.source, "used_bytes": f.used_bytes} for f in plan.wal],
            "histories": list(plan.histories),
        },
        "space_bytes": plan.space_bytes(staged=staged),
        "branches": [
            {"timeline": b.timeline, "parent": b.parent, "fork": str(b.fork), "end": str(b.end)} for b in plan.branches
        ],
        "later_tablespaces": {str(t.oid): t.location for t in plan.later_tablespaces},
        "notes": list(plan.notes),
    }


def _damage(damage: FoundDamage | None) -> dict[str, object] | None:
    if damage is None:
        return None
    return {"backup": damage.backup, "moment": damage.moment.isoformat() if damage.moment else None}


def plan_lines(plan: RecoveryPlan, *, staged: bool) -> list[tuple[str, str]]:
    """The plan as labelled lines; sizes are left to the caller's formatting."""
    backup = plan.backup
    target = str(plan.asked) if plan.asked == plan.target else f"{plan.asked}, which means {plan.target}"
    return [
        ("backup", f"{backup.name}, finished {time_text(backup.finished)}, PostgreSQL {backup.pg_major}"),
        ("target", f"{target}; then {plan.target.action}"),
        ("timeline", _path_text(plan)),
        ("WAL", f"{_files_text(plan)}, to {plan.end}, {'staged' if staged else 'fetched on demand'}"),
    ]


def _target(target: Target) -> dict[str, object]:
    return {
        "kind": target.kind,
        "value": target.value or None,
        "exclusive": target.exclusive,
        "action": target.action,
    }


def _path_text(plan: RecoveryPlan) -> str:
    steps = [f"{timeline} to {end}" if end is not None else str(timeline) for timeline, _, end in plan.history.path()]
    return ", then ".join(steps)


def _files_text(plan: RecoveryPlan) -> str:
    names = [str(f.segment) for f in plan.wal]
    if len(names) <= _FILES_SHOWN:
        return ", ".join(names) or "none"
    return f"{counted(len(names), 'segment')}, {names[0]} to {names[-1]}"
