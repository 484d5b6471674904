"""Which backups stay, and every reason why.

Order is by time, never by LSN or name: after a failover or an upgrade both can go back. A backup that cannot be
restored fills no place of the policy; it goes once it is older than the oldest restorable one that the policy keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, tzinfo

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.retention_branches import ended_timelines
from pgbackup.core.retention_policy import RetentionPolicy, newest_first, span_text, time_of

PERMANENT = "permanent"
NEWEST = "newest restorable"
PINNED = "the store does not let it go"
FOUND_DAMAGED = "it, or what it builds on, was damaged when a verification last read it"


@dataclass(frozen=True)
class Choice:
    """``reasons``: name -> why it stays; a backup without an entry goes. ``problems``: name -> why not restorable.

    ``onward``: the kept backups from which recovery must get to every later moment; the WAL of the others need only
    make them consistent. ``ended``: the timelines that no moment of the window lies on.
    """

    reasons: dict[str, list[str]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    onward: frozenset[str] = frozenset()
    ended: frozenset[int] = frozenset()

    def add(self, backup: Backup, reason: str) -> None:
        reasons = self.reasons.setdefault(backup.name, [])
        if reason not in reasons:
            reasons.append(reason)


def choose(
    catalog: Catalog,
    policy: RetentionPolicy,
    now: datetime,
    tz: tzinfo,
    pinned: frozenset[str] = frozenset(),
    damaged: frozenset[str] = frozenset(),
) -> Choice:
    """Decide for every backup. ``pinned``: backups that the store has refused to give up. ``damaged``: those that a
    verification found so: they stay as if they were whole, for that may be mended, and the whole ones as if the damaged
    ones were not there."""
    problems = {b.name: why for b in catalog.backups if (why := catalog.why_not_restorable(b))}
    restorable = newest_first([b for b in catalog.backups if b.name not in problems])
    # A delta is as whole as all that it builds on.
    whole = [b for b in restorable if damaged.isdisjoint(link.name for link in catalog.chain(b))]
    cutoff = now - policy.window
    ended = ended_timelines(catalog, restorable, cutoff) & ended_timelines(catalog, whole, cutoff)
    choice = Choice(problems=problems, ended=ended)
    for some in (whole, restorable):
        _keep_by_policy(choice, catalog, some, policy, cutoff, tz)
    problems |= dict.fromkeys({b.name for b in restorable} - {b.name for b in whole}, FOUND_DAMAGED)
    by_policy = frozenset(choice.reasons)
    broken = _keep_broken(choice, catalog, by_policy)
    for backup in catalog.backups:
        if backup.permanent:
            choice.add(backup, PERMANENT)
        if backup.name in pinned:
            choice.add(backup, PINNED)
    _keep_chains(choice, catalog)
    return Choice(choice.reasons, problems, by_policy | broken, choice.ended)


def _keep_by_policy(
    choice: Choice, catalog: Catalog, restorable: list[Backup], policy: RetentionPolicy, cutoff: datetime, tz: tzinfo
) -> None:
    if restorable:
        choice.add(restorable[0], NEWEST)
    for backup in restorable[: policy.backups]:
        choice.add(backup, "the newest" if policy.backups == 1 else f"one of the newest {policy.backups}")
    _keep_window(choice, catalog, restorable, cutoff, f"the window of {span_text(policy.window)}")
    _keep_periods(choice, restorable, policy, tz)


def _keep_window(choice: Choice, catalog: Catalog, restorable: list[Backup], cutoff: datetime, window: str) -> None:
    """Everything that finished in the window, and before it the newest on the path of each timeline in it."""
    needed: set[str] = set()
    before = [b for b in restorable if time_of(b) <= cutoff]
    for timeline in catalog.timelines:
        if timeline in choice.ended:
            continue
        history = catalog.history(timeline)
        on_path = (b for b in before if history.holds(b.timeline, b.stop_lsn))
        if (anchor := next(on_path, None)) is not None:
            needed.add(anchor.name)
    for backup in restorable:
        if time_of(backup) > cutoff:
            choice.add(backup, f"inside {window}")
        elif backup.name in needed:
            choice.add(backup, f"needed for {window}")


def _keep_periods(choice: Choice, restorable: list[Backup], policy: RetentionPolicy, tz: tzinfo) -> None:
    kinds: tuple[tuple[str, int, Callable[[datetime], str]], ...] = (
        ("daily", policy.daily, lambda local: local.strftime("%Y-%m-%d")),
        ("weekly", policy.weekly, lambda local: local.strftime("%G-W%V")),
        ("monthly", policy.monthly, lambda local: local.strftime("%Y-%m")),
        ("yearly", policy.yearly, lambda local: local.strftime("%Y")),
    )
    for kind, count, name_of in kinds:
        seen: set[str] = set()
        for backup in restorable:
            period = name_of(time_of(backup).astimezone(tz))
            if period in seen:
                continue
            if len(seen) == count:
                break
            seen.add(period)
            choice.add(backup, f"{kind} {period}")


def _keep_broken(choice: Choice, catalog: Catalog, by_policy: Iterable[str]) -> frozenset[str]:
    """Backups that cannot be restored stay while they are newer than the oldest restorable one that the policy keeps:
    what is wrong with them may be found out, or mended, and their number is bounded."""
    kept = set(by_policy)
    oldest = min((time_of(b) for b in catalog.backups if b.name in kept), default=None)
    stay = set()
    for backup in catalog.backups:
        if backup.name in choice.problems and (oldest is None or time_of(backup) >= oldest):
            choice.add(backup, "not restorable, but newer than the oldest restorable backup kept")
            stay.add(backup.name)
    return frozenset(stay)


def _keep_chains(choice: Choice, catalog: Catalog) -> None:
    """What a kept delta builds on stays, to the full backup at the chain's begin."""
    waiting = [b for b in catalog.backups if b.name in choice.reasons]
    done: set[str] = set()
    while waiting:
        backup = waiting.pop()
        parent = catalog.backup(backup.delta_of) if backup.delta_of else None
        if backup.name in done or parent is None:
            continue
        done.add(backup.name)
        choice.add(parent, f"the delta {backup.name} needs it")
        waiting.append(parent)
