"""Plan a restore: which backup, which timeline path, which WAL files, what Postgres is told; or why it cannot succeed.

A restore that cannot succeed is refused here, before a byte is written, with what could succeed. What the listing
cannot say (where a transaction ended, whether a commit follows a moment) comes in as Evidence from a scan of the WAL.
Executing a plan decides nothing any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pgbackup.core.backup import Backup, Tablespace
from pgbackup.core.catalog import Catalog
from pgbackup.core.found_damaged import Damaged, FoundDamage, found_damage
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.recovery_choice import (
    candidates,
    chosen_by_name,
    ended_before,
    known_until,
    later_tablespaces,
    marks_on,
)
from pgbackup.core.recovery_evidence import Evidence, StopRecord
from pgbackup.core.recovery_notes import notes_of
from pgbackup.core.recovery_path import Branch, WalFile, WalPath, choose_history, other_branches, wal_path
from pgbackup.core.recovery_refusals import (
    before_backup,
    beyond_archive,
    confirmed_elsewhere,
    confirmed_missing,
    ends_early,
    missing_segment,
    no_backup,
    not_found,
    not_proven,
)
from pgbackup.core.recovery_target import Target, time_text
from pgbackup.core.time_marks import ended_early_at
from pgbackup.core.timeline import TimelineHistory
from pgbackup.errors import RestoreError

STAGED_LIMIT_BYTES = 50 << 30
"""Above this, staged WAL is a bad idea: on-demand, or a newer backup."""


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """Everything that a restore needs to know. ``asked`` is the operator's target, ``target`` what Postgres is told.

    ``wal``: the files for recovery in order, to ``end``. ``histories``: the timelines whose history files go along.
    ``branches``: timelines that this recovery leaves out. ``later_tablespaces``: those that its WAL creates, as far as
    newer backups tell. ``damage``: what a verification found of the backup. ``notes`` are for people.
    """

    backup: Backup
    asked: Target
    target: Target
    history: TimelineHistory
    wal: tuple[WalFile, ...]
    end: Lsn
    histories: tuple[int, ...]
    branches: tuple[Branch, ...] = ()
    later_tablespaces: tuple[Tablespace, ...] = ()
    damage: FoundDamage | None = None
    notes: tuple[str, ...] = ()

    @property
    def timeline(self) -> int:
        return self.history.timeline

    @property
    def wal_bytes(self) -> int:
        """Size of the WAL files as Postgres sees them."""
        return sum(file.segment.segment_bytes for file in self.wal)

    def space_bytes(self, *, staged: bool) -> int:
        """Free space that restore and recovery need: data, and staged WAL twice (it is copied into pg_wal)."""
        ahead = min(8 * self.wal[0].segment.segment_bytes, self.wal_bytes) if self.wal else 0
        return self.backup.raw_bytes + (2 * self.wal_bytes if staged else 2 * ahead)


@dataclass(frozen=True, slots=True)
class _Question:
    """What is to be planned, once the path is chosen."""

    catalog: Catalog
    target: Target
    history: TimelineHistory
    by_name: Backup | None
    last_confirmed: tuple[int, Lsn] | None
    accept_loss: bool
    evidence: Evidence | None
    timeline_asked: bool = False
    damaged: Damaged = field(default_factory=dict)

    def backups(self) -> list[Backup]:
        """The backups on the path, newest first. Raises RestoreError when there is none."""
        found = candidates(self.catalog, self.history, self.by_name)
        if not found:
            raise no_backup(self.catalog, self.history)
        return found

    def newest(self) -> Backup:
        """The newest backup; where loss is accepted, the newest whose own WAL is there. Raises RestoreError."""
        backups = self.backups()
        whole = (b for b in backups if self.accept_loss and not self.catalog.why_not_restorable(b))
        return next(whole, backups[0])

    def newest_before(self, lsn: Lsn) -> Backup:
        """The newest backup that ends at or before an LSN. Raises RestoreError."""
        backups = self.backups()
        backup = next((b for b in backups if b.stop_lsn <= lsn), None)
        if backup is None:
            raise before_backup(self.catalog, self.target, backups[-1])
        return backup

    def last_record(self) -> Target:
        """A target that means the end of the archive as it is now: its last record, where that is known."""
        if self.evidence is None or self.evidence.last_record is None:
            return Target(action=self.target.action)
        return Target("lsn", lsn=self.evidence.last_record, action=self.target.action)


def plan_restore(  # noqa: PLR0913 - one call answers one command line
    catalog: Catalog,
    target: Target,
    *,
    backup: str | None = None,
    timeline: int | None = None,
    last_confirmed: tuple[int, Lsn] | None = None,
    accept_loss: bool = False,
    default_timeline: int | None = None,
    evidence: Evidence | None = None,
    damaged: Damaged | None = None,
) -> RecoveryPlan:
    """Plan a restore. Raises RestoreError when it cannot succeed, with what could.

    ``last_confirmed``: the last LSN known to have been durable, with its timeline. ``default_timeline``: the one last
    written. Without ``evidence`` nothing is assumed that the listing does not show. ``damaged``: what the last
    verifications found damaged, and when; it changes no choice, but is told.
    """
    by_name = chosen_by_name(catalog, backup)
    history = path_of(catalog, target, by_name, timeline, default_timeline)
    question = _Question(
        catalog, target, history, by_name, last_confirmed, accept_loss, evidence,
        timeline_asked=timeline is not None, damaged=damaged or {},
    )  # fmt: skip
    planners = {"latest": _to_the_end, "immediate": _to_the_backup, "time": _to_time, "lsn": _to_lsn}
    return planners.get(target.kind, _to_record)(question)


def path_of(
    catalog: Catalog, target: Target, by_name: Backup | None, timeline: int | None, default_timeline: int | None
) -> TimelineHistory:
    """The timeline path that plan_restore takes. Raises RestoreError."""
    if target.kind == "immediate" and by_name is not None and timeline is None:
        timeline = by_name.timeline
    return choose_history(catalog, by_name, timeline, default_timeline)


# -- one function for each kind of target ---------------------------------------------------------------------------


def _to_the_end(question: _Question) -> RecoveryPlan:
    plan = _as_far_as_it_goes(question, question.target)
    if not question.accept_loss:
        _nothing_is_lost(question, plan)
    return plan


def _to_the_backup(question: _Question) -> RecoveryPlan:
    backup = question.newest()
    path = wal_path(question.catalog, backup.start_lsn, question.history, backup.stop_lsn)
    return _plan(question, backup, path, backup.stop_lsn)


def _to_lsn(question: _Question) -> RecoveryPlan:
    lsn, evidence = question.target.lsn, question.evidence
    assert lsn is not None
    backup = question.newest_before(lsn)
    if evidence is not None and evidence.stop is not None:
        return _to_stop(question, backup, evidence.stop)
    path = wal_path(question.catalog, backup.start_lsn, question.history)
    if path.end < lsn:
        raise _beyond(question, path)
    if evidence is not None or path.end == lsn:
        note = f"no record begins at or after {lsn}: recovery goes to the end of the archive, {path.end}"
        return _plan(question, backup, path, target=question.last_record(), notes=(note,))
    size = question.catalog.segment_bytes
    ahead = Lsn(min((lsn // size + 2) * size, path.end))
    return _plan(question, backup, wal_path(question.catalog, backup.start_lsn, question.history, ahead))


def _to_time(question: _Question) -> RecoveryPlan:
    moment, evidence = question.target.time, question.evidence
    assert moment is not None
    backups, marks = question.backups(), marks_on(question.catalog, question.history)
    before = ended_before(backups, moment, marks)
    if evidence is not None and evidence.stop is not None:
        stop = evidence.stop
        before = [b for b in before if b.stop_lsn <= stop.start]
    if not before:
        raise before_backup(question.catalog, question.target, backups[-1])
    early = ended_early_at(marks, before[0].stop_lsn, moment)
    if evidence is not None and evidence.stop is not None:
        if early:
            raise ends_early(question.target, *early)
        return _to_stop(question, before[0], evidence.stop)
    path = wal_path(question.catalog, before[0].start_lsn, question.history)
    known = known_until(question.catalog, question.history, path.end)
    is_known = known is not None and moment <= known
    if not is_known and not question.accept_loss and (evidence is not None or known is not None):
        raise _beyond(question, path)
    if evidence is None:
        if early:
            raise ends_early(question.target, *early)
        return _plan(question, before[0], path, notes=("not proven: the WAL was not read for a later commit",))
    note = f"no transaction ended after {time_text(moment)}: recovery goes to the end of the archive, {path.end}"
    return _plan(question, before[0], path, target=question.last_record(), notes=(note,))


def _to_record(question: _Question) -> RecoveryPlan:
    """To a transaction or a restore point, which only a scan of the WAL can find."""
    evidence = question.evidence
    if evidence is None:
        if question.by_name is None:
            raise not_proven(question.target)
        note = f"not proven: the WAL was not read for {question.target}; without it recovery ends in an error"
        plan = _as_far_as_it_goes(question, question.target)
        return replace(plan, notes=(*plan.notes, note))
    stop = evidence.stop
    if stop is None:
        raise not_found(question.target, question.history, evidence.last_commit)
    plan = _to_stop(question, question.newest_before(stop.start), stop)
    notes = [f"{question.target} is at {_place_of(stop)}"]
    notes += [f"another one of that name is at {_place_of(each)}: --to-lsn {each.start}" for each in evidence.others]
    if question.target.kind != "name":
        return replace(plan, notes=(*notes, *plan.notes))
    # Of several with one name Postgres would take the first that it meets, which may be another.
    target = Target("lsn", lsn=stop.start, action=question.target.action)
    return replace(plan, target=target, notes=(*notes, *plan.notes))


def _place_of(stop: StopRecord) -> str:
    return f"{stop.start}, of {time_text(stop.time)}" if stop.time else str(stop.start)


# -- what they share ------------------------------------------------------------------------------------------------


def _to_stop(question: _Question, backup: Backup, stop: StopRecord) -> RecoveryPlan:
    path = wal_path(question.catalog, backup.start_lsn, question.history, stop.end)
    if path.end < stop.end and path.missing is not None:
        raise missing_segment(question.catalog, path.missing, path.end, f"the target is at {stop.start}")
    return _plan(question, backup, path, stop.end)


def _as_far_as_it_goes(question: _Question, target: Target) -> RecoveryPlan:
    backup = question.newest()
    return _plan(question, backup, wal_path(question.catalog, backup.start_lsn, question.history), target=target)


def _beyond(question: _Question, path: WalPath) -> RestoreError:
    """The error for a target that the unbroken row of WAL does not reach."""
    catalog, history, evidence = question.catalog, question.history, question.evidence
    if path.missing is not None and (behind := _wal_behind(catalog, history, path.missing, path.end)):
        return missing_segment(catalog, path.missing, path.end, f"there is WAL of {behind} behind the hole")
    known = known_until(catalog, history, path.end)
    return beyond_archive(catalog, question.target, path.end, known, evidence.last_commit if evidence else None)


def _nothing_is_lost(question: _Question, plan: RecoveryPlan) -> None:
    """Refuse an end that is earlier than it should be: WAL lies behind a hole, or was durable and is gone."""
    missing = question.history.segment_for(plan.end // question.catalog.segment_bytes, question.catalog.segment_bytes)
    if behind := _wal_behind(question.catalog, question.history, missing, plan.end):
        raise missing_segment(question.catalog, missing, plan.end, f"there is WAL of {behind} behind the hole")
    if question.last_confirmed is not None:
        timeline, lsn = question.last_confirmed
        on_path = question.history.includes(timeline)
        if on_path and question.history.holds(timeline, lsn) and lsn > plan.end:
            raise confirmed_missing(plan.end, lsn)
        if not on_path and not question.timeline_asked and question.by_name is None:
            raise confirmed_elsewhere(question.history.timeline, timeline, lsn)


def _wal_behind(catalog: Catalog, history: TimelineHistory, missing: SegmentName, end: Lsn) -> SegmentName | str:
    """The first WAL on the path behind the end of the unbroken row; empty when that is the end of everything."""
    if missing.timeline != history.timeline:
        return f"timeline {history.timeline}"
    numbers = list(catalog.segments.get(history.timeline, ()))
    numbers += [s.number for s in catalog.tails if s.timeline == history.timeline]
    behind = min((n for n in numbers if n * catalog.segment_bytes > end), default=None)
    return "" if behind is None else SegmentName(history.timeline, behind, catalog.segment_bytes)


def _plan(
    question: _Question,
    backup: Backup,
    path: WalPath,
    end: Lsn | None = None,
    *,
    target: Target | None = None,
    notes: tuple[str, ...] = (),
) -> RecoveryPlan:
    """The plan for a path of WAL. Raises RestoreError when it does not even make the backup consistent."""
    catalog, history = question.catalog, question.history
    if path.end < backup.stop_lsn and path.missing is not None:
        what_for = f"backup {backup.name} needs it to {backup.stop_lsn}"
        raise missing_segment(catalog, path.missing, path.end, what_for)
    end = end if end is not None else path.end
    return RecoveryPlan(
        backup=backup,
        asked=question.target,
        target=target or question.target,
        history=history,
        wal=path.files,
        end=end,
        histories=tuple(sorted(catalog.histories)),
        branches=tuple(other_branches(catalog, history)),
        later_tablespaces=later_tablespaces(catalog, history, backup, end),
        damage=found_damage(catalog, backup, question.damaged),
        notes=(*notes, *notes_of(catalog, history, backup, path, end, question.damaged)),
    )
