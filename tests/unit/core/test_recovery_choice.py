"""What a plan says of a target that is a record, and of what the backup that it chose does not have yet."""

from __future__ import annotations

from dataclasses import replace

from pgbackup.core.backup import Tablespace
from pgbackup.core.recovery_plan import plan_restore
from pgbackup.core.recovery_target import Target
from tests.made_catalog import at, backup, catalog, simple, stop_at


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


def test_other_restore_points_of_the_name_are_told():
    first, second = stop_at(12.3, minute=65), stop_at(13.1)
    plan = plan_restore(simple(), Target("name", name="x"), evidence=replace(first, others=(second.stop,)))
    assert plan.target.lsn == at(12.3)
    assert plan.notes[1] == f"another one of that name is at {at(13.1)}: --to-lsn {at(13.1)}"
