"""Plan an expiry: what stays and what goes, each with its reasons; or why nothing may go.

Pure: the same catalog, policy and moment give the same plan, and planning again after it was applied removes nothing
more. Executing a plan decides nothing any more. The parts are beside this file: the policy (retention_policy), which
backups stay (retention_choice), which WAL they need (retention_wal), when expiry refuses (retention_guards).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog, TimeMark
from pgbackup.core.retention_choice import Choice, choose
from pgbackup.core.retention_guards import Refusal, refuse
from pgbackup.core.retention_policy import LastListing, RetentionPolicy, UnderWay, time_of
from pgbackup.core.retention_wal import (
    WalRange,
    keeps_mark,
    marks_horizon,
    needed_spans,
    removable_histories,
    removable_wal,
)

__all__ = [
    "ExpiryPlan",
    "LastListing",
    "RetentionPolicy",
    "UnderWay",
    "Verdict",
    "WalRange",
    "catalog_after",
    "plan_expiry",
]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to one backup, and why; ``problem`` says why it cannot be restored."""

    backup: Backup
    keep: bool
    reasons: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ExpiryPlan:
    """``backups``: every backup, oldest first. ``wal``, ``histories`` (timelines) and ``marks`` go.

    With a ``refusal`` nothing goes: the verdicts then only show what the policy says.
    """

    backups: tuple[Verdict, ...]
    wal: tuple[WalRange, ...] = ()
    histories: tuple[int, ...] = ()
    marks: tuple[TimeMark, ...] = ()
    refusal: str = ""
    hint: str = ""

    @property
    def removed(self) -> tuple[Backup, ...]:
        """The backups that go, in the order in which that must happen: deltas before what they build on."""
        if self.refusal:
            return ()
        going = {v.backup.name: v.backup for v in self.backups if not v.keep}
        return tuple(sorted(going.values(), key=lambda b: (-_links(b, going), time_of(b), b.name)))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not (self.removed or self.wal or self.histories or self.marks)

    def same_removal(self, other: ExpiryPlan) -> bool:
        """Whether both remove the same; what was written meanwhile and stays does not count."""
        mine = (self.refusal, self.removed, self.wal, self.histories, self.marks)
        return mine == (other.refusal, other.removed, other.wal, other.histories, other.marks)


def plan_expiry(  # noqa: PLR0913 - all that a plan follows from
    catalog: Catalog,
    policy: RetentionPolicy,
    now: datetime,
    tz: tzinfo,
    previous: LastListing | None = None,
    *,
    under_way: Iterable[UnderWay] = (),
    pinned: frozenset[str] = frozenset(),
    damaged: frozenset[str] = frozenset(),
) -> ExpiryPlan:
    """Decide what stays and what goes at ``now``; days and weeks are those of ``tz``.

    ``previous``: what the last expiry saw. ``under_way``: base backups that are not sealed yet. ``pinned``: backups
    that the store has refused to give up: they stay, with what they need. ``damaged``: backups that a verification
    found so: they take the place of no other.
    """
    choice = choose(catalog, policy, now, tz, pinned, damaged)
    verdicts = tuple(_verdict(backup, choice) for backup in sorted(catalog.backups, key=lambda b: (time_of(b), b.name)))
    refusal = refuse(catalog, policy, choice, now, previous)
    if refusal is not None:
        return ExpiryPlan(verdicts, refusal=refusal.text, hint=refusal.hint)
    wal = removable_wal(catalog, choice, needed_spans(catalog, choice, under_way))
    horizon = marks_horizon(catalog, choice, now - policy.window)
    kept = [verdict.backup for verdict in verdicts if verdict.keep]
    marks = tuple(mark for mark in catalog.marks if not keeps_mark(mark.moment, horizon, kept))
    plan = ExpiryPlan(verdicts, wal, removable_histories(catalog, choice, wal), marks)
    if (harm := _harm(catalog, plan)) is not None:
        return ExpiryPlan(verdicts, refusal=harm.text, hint=harm.hint)
    return plan


def catalog_after(catalog: Catalog, plan: ExpiryPlan) -> Catalog:
    """What the repository holds once the plan is carried out."""
    removed = {backup.name for backup in plan.removed}

    def stays(timeline: int, number: int) -> bool:
        return not any(r.timeline == timeline and r.begin <= number < r.end for r in plan.wal)

    segments = {t: _left(numbers, [r for r in plan.wal if r.timeline == t]) for t, numbers in catalog.segments.items()}
    gone = frozenset(plan.marks)
    return replace(
        catalog,
        backups=tuple(b for b in catalog.backups if b.name not in removed),
        segments={timeline: numbers for timeline, numbers in segments.items() if numbers},
        tails={s: end for s, end in catalog.tails.items() if stays(s.timeline, s.number)},
        histories={t: history for t, history in catalog.histories.items() if t not in plan.histories},
        marks=tuple(mark for mark in catalog.marks if mark not in gone),
    )


def _left(numbers: Sequence[int], ranges: list[WalRange]) -> Sequence[int]:
    for each in ranges:
        low, high = bisect_left(numbers, each.begin), bisect_left(numbers, each.end)
        numbers = [*numbers[:low], *numbers[high:]] if low < high else numbers
    return numbers


def _verdict(backup: Backup, choice: Choice) -> Verdict:
    problem = choice.problems.get(backup.name, "")
    if backup.name in choice.reasons:
        return Verdict(backup, True, tuple(choice.reasons[backup.name]), problem)
    why = "not restorable, and older than the oldest restorable backup kept" if problem else "nothing needs it"
    return Verdict(backup, False, (why,), problem)


def _harm(catalog: Catalog, plan: ExpiryPlan) -> Refusal | None:
    """A second look at the result, by other means than the plan was made with: deletion cannot be taken back."""
    after = catalog_after(catalog, plan)
    for verdict in plan.backups:
        if verdict.keep and not verdict.problem and (why := after.why_not_restorable(verdict.backup)):
            return Refusal(
                f"the plan would harm backup {verdict.backup.name}, which is to stay: {why}",
                "Please report this, with the output of pgbackup list --json and pgbackup expire --json.",
            )
    return None


def _links(backup: Backup, among: dict[str, Backup]) -> int:
    """How many backups among these it builds on, to the begin of its chain."""
    links = 0
    while links <= len(among) and backup.delta_of in among:
        backup = among[backup.delta_of]
        links += 1
    return links
