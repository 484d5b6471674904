"""What a plan tells beside what it does: a backup that a verification found damaged is used, and that is said."""

from __future__ import annotations

from dataclasses import replace

from pgbackup.core.found_damaged import FoundDamage
from pgbackup.core.recovery_plan import plan_restore
from pgbackup.core.recovery_target import Target
from tests.made_catalog import minutes, simple


def test_a_backup_that_was_found_damaged_is_chosen_with_a_warning() -> None:
    older, newer = (b.name for b in simple().backups)
    damaged = {newer: minutes(90)}
    plan = plan_restore(simple(), Target(), damaged=damaged)
    assert (plan.backup.name, plan.damage) == (newer, FoundDamage(newer, minutes(90)))
    (note,) = plan.notes
    assert "was last verified, 2026-" in note
    assert f"`pgbackup verify --backup {newer}`" in note
    assert note.endswith(f"{older} was not found damaged and gets there too: --backup {older}")
    for nothing_else in ({newer: None, older: None}, {newer: None}):
        known = simple() if older in nothing_else else replace(simple(), segments={1: [3, *range(10, 21)]})
        (note,) = plan_restore(known, Target(), damaged=nothing_else).notes
        assert note.endswith("says whether it is still"), "the other one is no better, or does not get there"
    assert plan_restore(simple(), Target(), damaged={older: None}).notes == ()
    named = plan_restore(simple(), Target(), damaged=damaged, backup=older)
    assert (named.notes, named.damage) == ((), None)
