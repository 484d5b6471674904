"""What a plan says of a target that is a record, and of what the backup that it chose does not have yet."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pgbackup.core.backup import Tablespace
from pgbackup.core.lsn import Lsn
from pgbackup.core.recovery_plan import plan_restore
from pgbackup.core.recovery_target import Target
from tests.made_catalog import at, backup, catalog, minutes, refused, simple, stop_at


def test_a_restore_point_is_found_again_by_its_position():
    """Postgres takes the first of that name after the backup, which may be another one."""
    target = Target("name", name="before", action="pause")
    plan = plan_restore(simple(), target, evidence=stop_at(12.3, minute=65))
    assert plan.target == Target("lsn", lsn=at(12.3), action="pause")
    assert plan.notes[0] == f"restore point before is at {at(12.3)}, of 2026-01-31 13:05:00+00"


def test_the_time_of_a_transaction_is_told():
    plan = plan_restore(simple(), Target("xid", xid=700), evidence=stop_at(12.3, minute=65))
    assert plan.target == plan.asked
    assert plan.notes[0] == f"transaction 700 is at {at(12.3)}, of 2026-01-31 13:05:00+00"


def test_tablespaces_that_newer_backups_have_are_named():
    there = Tablespace(16400, "/fast")
    found = catalog([backup(3.2, 4.5), replace(backup(10.1, 11.5, minute=60), tablespaces=(there,))], {1: range(3, 15)})
    older = found.backups[0].name
    assert plan_restore(found, Target(), backup=older).later_tablespaces == (there,)
    assert plan_restore(found, Target()).later_tablespaces == ()
    assert plan_restore(found, Target("immediate"), backup=older).later_tablespaces == ()


def damaged(found, **changes):
    """The last backup of a catalog, as the reader gives one whose documents contradict each other."""
    last = replace(found.backups[-1], problem="its documents contradict each other", **changes)
    return replace(found, backups=(*found.backups[:-1], last)), last


UNKNOWN = {"stop_lsn": Lsn(0)}
UNREADABLE = {"stop_lsn": Lsn(0), "start_lsn": Lsn(0), "finished": datetime.fromtimestamp(0, UTC)}


@pytest.mark.parametrize("changes", [UNKNOWN, UNREADABLE, {}])
@pytest.mark.parametrize(
    "target", [Target(), Target("immediate"), Target("lsn", lsn=at(21)), Target("time", time=minutes(70))]
)
def test_a_damaged_backup_gives_way_to_an_older_one_and_is_named(target, changes):
    found, last = damaged(simple(marks=[(90, 1, 21.2)]), **changes)
    plan = plan_restore(found, target)
    assert plan.backup == found.backups[0]
    assert f"{last.name} is newer but not used: its documents contradict each other" in plan.notes


def test_a_damaged_backup_of_a_timeline_that_nobody_knows():
    """Its name may be what is damaged: no reason to recover along it, nor to be silent about it."""
    found, last = damaged(simple(), name="base_000000070000000000000003", timeline=7, **UNREADABLE)
    plan = plan_restore(found, Target())
    assert (plan.backup, plan.timeline) == (found.backups[0], 1)
    assert f"{last.name} is newer but not used: its documents contradict each other" in plan.notes
    assert not plan.branches


def test_a_damaged_backup_that_is_older_is_not_named():
    found = simple()
    first = replace(found.backups[0], problem="its documents contradict each other", **UNKNOWN)
    plan = plan_restore(replace(found, backups=(first, found.backups[1])), Target())
    assert plan.notes == ()


def test_only_damaged_backups():
    found, last = damaged(catalog([backup(3.2, 4.5)], {1: range(3, 9)}), **UNKNOWN)
    why = f"{last.name} cannot be used: its documents contradict each other"
    assert why in refused(found, Target()).detail
    assert why in refused(replace(found, segments={}), Target()).detail
    found, last = damaged(catalog([backup(10.1, 11.5, minute=60), backup(3.2, 4.5)], {1: range(3, 20)}), **UNKNOWN)
    assert why in refused(found, Target("lsn", lsn=at(5))).detail


def test_a_backup_from_before_its_timeline():
    """Its name or its documents are damaged: Postgres would refuse it with "not a child of this server's history"."""
    forks = [(2, f"1\t{at(8)}\tx\n")]
    found = catalog(
        [backup(3.2, 4.5), backup(6.2, 8.5, timeline=2, minute=60)], {1: range(3, 9), 2: range(8, 12)}, forks=forks
    )
    last = found.backups[1]
    why = f"it began at {at(6.2)}, before its timeline 2 did, at {at(8)}"
    assert found.why_not_restorable(last) == why
    plan = plan_restore(found, Target())
    assert (plan.backup, plan.timeline) == (found.backups[0], 2)
    assert f"{last.name} is newer but not used: {why}" in plan.notes
    assert why in refused(found, Target(), backup=last.name).detail


def test_tablespaces_of_a_backup_whose_stop_is_not_known():
    there = Tablespace(16400, "/fast")
    found = catalog([backup(3.2, 4.5), replace(backup(10.1, 11.5, minute=60), tablespaces=(there,))], {1: range(3, 15)})
    found, _ = damaged(found, **UNKNOWN)
    assert plan_restore(found, Target()).later_tablespaces == (there,)
    assert plan_restore(found, Target("immediate")).later_tablespaces == ()


def test_other_restore_points_of_the_name_are_told():
    first, second = stop_at(12.3, minute=65), stop_at(13.1)
    plan = plan_restore(simple(), Target("name", name="x"), evidence=replace(first, others=(second.stop,)))
    assert plan.target.lsn == at(12.3)
    assert plan.notes[1] == f"another one of that name is at {at(13.1)}: --to-lsn {at(13.1)}"
