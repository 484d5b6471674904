"""Expiry cannot hurt: for any history of a cluster and any policy, with the truth about every byte's time at hand."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from pgbackup.core.catalog import Catalog
from pgbackup.core.retention import RetentionPolicy, catalog_after, plan_expiry
from tests.made_catalog import SIZE, at
from tests.made_history import History, histories, policies


def restorable(catalog: Catalog) -> set[str]:
    return {b.name for b in catalog.backups if not catalog.why_not_restorable(b)}


@settings(max_examples=2000, deadline=None)
@given(histories(), policies, st.booleans())
def test_expiry_cannot_hurt(history: History, policy: RetentionPolicy, with_histories: bool) -> None:
    before = history.catalog(with_histories=with_histories)
    plan = plan_expiry(before, policy, history.now, UTC)
    assert "would harm" not in plan.refusal
    after = catalog_after(before, plan)
    if plan.refusal:
        assert after == before
        return
    good, left = restorable(before), restorable(after)
    assert len(left) >= policy.min_restorable
    names = {b.name for b in after.backups}
    assert left == good & names
    # No kept delta loses a link of its chain, and one that was whole is the same chain as before.
    assert all(b.delta_of in names for b in after.backups if b.delta_of and before.backup(b.delta_of))
    assert all(after.chain(b) == before.chain(b) for b in after.backups if b.name in left)
    assert {b.name for b in before.backups if b.permanent} <= names
    cutoff = history.now - policy.window
    assert history.reached(before, cutoff) <= history.reached(after, cutoff)
    assert plan_expiry(after, policy, history.now, UTC).is_empty


@settings(max_examples=500, deadline=None)
@given(histories(), policies, st.randoms())
def test_damage_that_was_found_removes_nothing_more(
    history: History, policy: RetentionPolicy, random: random.Random
) -> None:
    before = history.catalog()
    damaged = frozenset(name for name in sorted(restorable(before)) if random.random() < 0.3)
    plan, unknown = (plan_expiry(before, policy, history.now, UTC, damaged=found) for found in (damaged, frozenset()))
    if plan.refusal:
        return
    after, would_be = catalog_after(before, plan), catalog_after(before, unknown)
    assert {b.name for b in would_be.backups} <= {b.name for b in after.backups}
    assert all(set(numbers) <= set(after.segments.get(t, ())) for t, numbers in would_be.segments.items())
    assert set(would_be.tails) <= set(after.tails)
    good = [b for b in before.backups if not before.why_not_restorable(b)]
    unsound = {b.name for b in good if any(link.name in damaged for link in before.chain(b))}
    whole = {b.name for b in good} - unsound
    left = restorable(after) - unsound
    assert len(left) >= max(min(policy.backups, len(whole)), policy.min_restorable)
    assert plan_expiry(after, policy, history.now, UTC, damaged=damaged).is_empty


@settings(max_examples=200, deadline=None)
@given(histories(), policies, st.integers(0, 400))
def test_an_interruption_leaves_what_was_restorable(history: History, policy: RetentionPolicy, cut: int) -> None:
    before = history.catalog()
    plan = plan_expiry(before, policy, history.now, UTC)
    removed = [b.name for b in plan.removed]
    order = {name: number for number, name in enumerate(removed)}
    for name in removed:
        parent = before.backup(name).delta_of  # type: ignore[union-attr]
        assert order.get(parent, len(removed)) > order[name], "a parent goes only when all that build on it are gone"
    gone, wal = set(removed[:cut]), plan.wal[: max(cut - len(removed), 0)]
    midway = replace(catalog_after(before, replace(plan, backups=(), wal=wal, histories=(), marks=())))
    midway = replace(midway, backups=tuple(b for b in before.backups if b.name not in gone))
    assert restorable(midway) == restorable(before) - gone
    again = plan_expiry(midway, policy, history.now, UTC)
    if not plan.refusal:
        assert {b.name for b in catalog_after(midway, again).backups} == {v.backup.name for v in plan.backups if v.keep}
        assert catalog_after(midway, again) == catalog_after(before, plan)


def test_the_histories_reach_what_they_are_for() -> None:
    """Enough of them remove something, have forks, and are not refused: else the properties prove nothing."""
    seen = {"removed": 0, "wal": 0, "forks": 0, "refused": 0, "histories": 0, "chains": 0}
    for seed in range(150):
        history = History(random.Random(seed))
        history.live(40)
        plan = plan_expiry(history.catalog(), RetentionPolicy(2, timedelta(days=3)), history.now, UTC)
        seen["removed"] += bool(plan.removed)
        seen["wal"] += bool(plan.wal)
        seen["histories"] += bool(plan.histories)
        seen["forks"] += len(history.ancestors) > 1
        seen["refused"] += bool(plan.refusal)
        kept = [v.backup for v in plan.backups if v.keep and not v.problem]
        seen["chains"] += any(len(history.catalog().chain(b)) > 2 for b in kept)
    assert seen["removed"] > 50, seen
    assert seen["wal"] > 50, seen
    assert seen["forks"] > 80, seen
    assert seen["chains"] > 10, seen
    upgraded = 0
    for seed in range(60):
        history = History(random.Random(seed), goes_back=False, upgrades=True)
        history.live(40)
        plan = plan_expiry(history.catalog(), RetentionPolicy(2, timedelta(days=3)), history.now, UTC)
        upgraded += len({b.system_identifier for b in history.backups}) > 1 and bool(plan.removed and plan.wal)
    assert upgraded > 20
    assert at(1) == SIZE
