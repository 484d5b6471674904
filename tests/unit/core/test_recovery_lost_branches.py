"""A branch that was left behind is never recovered without a word because the newer one's documents are gone."""

from __future__ import annotations

from pgbackup.core.recovery_plan import plan_restore
from pgbackup.core.recovery_target import Target
from tests.made_catalog import at, backup, catalog, refused


def test_a_timeline_without_its_history_is_refused():
    found = catalog([backup(3.2, 4.5)], {1: [3, 4], 2: [5]})
    assert "00000002.history is not in the repository, or damaged" in refused(found, Target(), timeline=2).message
    # Without it the branch that was left must not be taken for the whole: only when it is asked for.
    assert "00000002.history is not in the repository, or damaged" in refused(found, Target()).message
    assert plan_restore(found, Target(), timeline=1).timeline == 1


def test_wal_confirmed_on_a_branch_that_is_not_chosen_is_refused():
    """Nothing of timeline 2 is left in the repository, but the last confirmed WAL was of it."""
    found = catalog([backup(3.2, 4.5)], {1: [3, 4]})
    said = refused(found, Target(), last_confirmed=(2, at(9)))
    assert "the last WAL that was confirmed is of timeline 2" in said.message
    assert plan_restore(found, Target(), last_confirmed=(2, at(9)), timeline=1).timeline == 1
    assert plan_restore(found, Target(), last_confirmed=(2, at(9)), accept_loss=True).timeline == 1


def test_nothing_is_recoverable_on_a_timeline_without_its_history():
    found = catalog([backup(3.2, 4.5), backup(5.2, 6.5, timeline=2, minute=9)], {1: [3, 4], 2: [5, 6]})
    assert "00000002.history is missing" in found.why_not_restorable(found.backups[1])
    assert [r.timeline for r in found.recoverable()] == [1]
