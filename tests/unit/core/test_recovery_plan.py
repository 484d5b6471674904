"""Plans of a restore: which backup and WAL for which target, and every refusal."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from pgbackup.core.catalog import Catalog
from pgbackup.core.recovery_plan import plan_restore
from pgbackup.core.recovery_report import plan_document, plan_lines
from pgbackup.core.recovery_target import Target
from tests.made_catalog import (
    MIB,
    SIZE,
    at,
    backup,
    catalog,
    files,
    minutes,
    nothing_found,
    numbers,
    refused,
    simple,
    stop_at,
)

GOLDEN = Path(__file__).parents[2] / "data" / "restore_plans.json"


# -- which backup, how much WAL ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "evidence", "chosen", "last", "source"),
    [
        (Target(), None, 10, 21, "tail"),
        (Target("immediate"), None, 10, 11, "segment"),
        (Target("lsn", lsn=at(11.5)), stop_at(11.5), 10, 11, "segment"),
        (Target("lsn", lsn=at(11.4)), stop_at(11.4), 3, 11, "segment"),
        (Target("lsn", lsn=at(15.2)), stop_at(15.2), 10, 15, "segment"),
        (Target("lsn", lsn=at(15.2)), stop_at(15.99995), 10, 16, "segment"),
        (Target("lsn", lsn=at(15.2)), None, 10, 16, "segment"),
        (Target("lsn", lsn=at(20.9)), None, 10, 21, "tail"),
        (Target("xid", xid=700), stop_at(12.3), 10, 12, "segment"),
        (Target("xid", xid=700), stop_at(11.2), 3, 11, "segment"),
        (Target("name", name="before"), stop_at(21.2), 10, 21, "tail"),
        (Target("time", time=minutes(70)), stop_at(14.2, minute=71), 10, 14, "segment"),
        (Target("time", time=minutes(59)), stop_at(9.2, minute=59.5), 3, 9, "segment"),
    ],
)
def test_the_newest_backup_before_the_target_and_the_wal_to_it(target, evidence, chosen, last, source):
    plan = plan_restore(simple(), target, evidence=evidence)
    assert plan.backup.start_lsn // SIZE == chosen
    assert numbers(plan) == list(range(chosen, last + 1))
    assert plan.wal[-1].source == source
    assert plan.asked == target
    assert plan.target == target if target.kind != "name" else plan.target.kind == "lsn"
    assert plan.timeline == 1


def test_a_stop_lsn_on_a_boundary_needs_segments_to_the_byte_before():
    plan = plan_restore(catalog([backup(3.2, 5)], {1: [3, 4]}), Target("immediate"))
    assert numbers(plan) == [3, 4]
    assert plan.end == at(5)


def test_a_named_backup_is_used_although_a_newer_one_would_do():
    older = simple().backups[0].name
    assert plan_restore(simple(), Target(), backup=older).backup.name == older


def test_space_is_data_and_twice_the_staged_wal():
    plan = plan_restore(simple(), Target())
    assert plan.wal_bytes == 12 * SIZE
    assert plan.space_bytes(staged=True) == 124 * MIB
    assert plan.space_bytes(staged=False) == 116 * MIB
    few = plan_restore(simple(), Target("immediate"))
    assert few.space_bytes(staged=False) == few.space_bytes(staged=True) == 104 * MIB


# -- times ----------------------------------------------------------------------------------------------------------


def test_a_time_after_the_last_commit_becomes_the_last_record():
    known = simple(marks=[(90, 1, 21.5)])
    target = Target("time", time=minutes(85), action="pause")
    plan = plan_restore(known, target, evidence=nothing_found(21.3, minute=80))
    assert plan.asked == target
    assert plan.target == Target("lsn", lsn=at(21.3), action="pause")
    assert numbers(plan)[-1] == 21
    assert "no transaction ended after" in plan.notes[0]


@pytest.mark.parametrize("marks", [[], [(84, 1, 21.5)]])
def test_a_time_after_everything_that_is_known_is_refused(marks):
    error = refused(simple(marks=marks), Target("time", time=minutes(85)), evidence=nothing_found(21.3, minute=80))
    assert "beyond the archive" in error.message
    assert "13:20:00+00" in error.detail
    assert "--latest" in error.hint


def test_a_time_after_everything_is_the_end_when_loss_is_accepted():
    plan = plan_restore(simple(), Target("time", time=minutes(85)), evidence=nothing_found(21.3), accept_loss=True)
    assert plan.target.lsn == at(21.3)


def test_a_mark_behind_a_hole_proves_nothing():
    with_hole = catalog([backup(3.2, 4.5)], {1: [3, 4, 5, 7]}, marks=[(90, 1, 8)])
    error = refused(with_hole, Target("time", time=minutes(85)), evidence=nothing_found(5.9))
    assert "000000010000000000000006 is missing" in error.message


def test_marks_say_which_backup_had_ended():
    """By its own clock the second backup ended at 60, but the server's marks show that it had ended at 40."""
    target = Target("time", time=minutes(50))
    assert plan_restore(simple(marks=[(40, 1, 12)]), target, evidence=stop_at(14)).backup.start_lsn == at(10.1)
    assert plan_restore(simple(), target, evidence=stop_at(14)).backup.start_lsn == at(3.2)


def test_a_backup_that_ended_within_seconds_of_the_target_is_avoided():
    target = Target("time", time=minutes(60) + timedelta(seconds=2))
    assert plan_restore(simple(), target, evidence=stop_at(12)).backup.start_lsn == at(3.2)
    only = catalog([backup(10.1, 11.5, minute=60)], {1: range(10, 21)})
    assert plan_restore(only, target, evidence=stop_at(12)).backup.start_lsn == at(10.1)


def test_a_commit_after_the_time_but_before_the_backups_end_rules_the_backup_out():
    target = Target("time", time=minutes(61))
    assert plan_restore(simple(), target, evidence=stop_at(11.2)).backup.start_lsn == at(3.2)


def test_without_a_scan_a_known_time_is_planned_as_not_proven():
    plan = plan_restore(simple(marks=[(90, 1, 21)]), Target("time", time=minutes(85)))
    assert plan.target.kind == "time"
    assert numbers(plan)[-1] == 21
    assert "not proven" in plan.notes[0]
    assert "beyond" in refused(simple(marks=[(80, 1, 21)]), Target("time", time=minutes(85))).message


# -- LSNs at the end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [21.4, 21.5])
def test_an_lsn_behind_the_last_record_becomes_the_last_record(where):
    plan = plan_restore(simple(), Target("lsn", lsn=at(where)), evidence=nothing_found(21.3))
    assert plan.target.lsn == at(21.3)
    assert not plan.target.exclusive


def test_an_lsn_at_the_end_without_a_scan_is_the_end():
    assert plan_restore(simple(), Target("lsn", lsn=at(21.5))).target == Target()


def test_an_lsn_beyond_the_archive_is_refused():
    error = refused(simple(), Target("lsn", lsn=at(21.6)), evidence=nothing_found(21.3))
    assert "LSN 0/15999" in error.message
    assert "WAL ends at 0/1580000" in error.detail


# -- too early, not there -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "evidence"),
    [
        (Target("lsn", lsn=at(4.4)), None),
        (Target("time", time=minutes(-1)), None),
        (Target("xid", xid=700), stop_at(4.2)),
    ],
)
def test_a_target_before_the_first_backups_end_is_refused(target, evidence):
    error = refused(simple(), target, evidence=evidence)
    assert "before the end of the first backup" in error.message
    assert "recoverable: timeline 1: 2026-01-31 12:00:00+00" in error.detail


def test_a_transaction_needs_a_scan_or_a_backup():
    assert "--backup" in refused(simple(), Target("xid", xid=700)).hint
    plan = plan_restore(simple(), Target("xid", xid=700), backup=simple().backups[0].name)
    assert "not proven" in plan.notes[-1]
    assert numbers(plan) == list(range(3, 22))


def test_a_restore_point_that_is_not_there_is_refused():
    error = refused(simple(), Target("name", name="nowhere"), evidence=nothing_found(21.3, minute=88))
    assert "restore point nowhere is not in the archived WAL" in error.message


def test_an_empty_repository_is_refused():
    assert "no backup" in refused(catalog([], {}), Target()).message


def test_a_backup_that_is_not_there_is_refused():
    assert simple().backups[1].name in refused(simple(), Target(), backup="base_X").detail


# -- backups that cannot be used ------------------------------------------------------------------------------------


def test_a_backup_with_damaged_pages_is_used_only_by_name():
    bad = backup(10.1, 11.5, minute=60, corrupt_files=("base/5/16384",))
    found = catalog([backup(3.2, 4.5), bad], {1: range(3, 21)})
    plan = plan_restore(found, Target())
    assert plan.backup.start_lsn == at(3.2)
    assert any("damaged pages in base/5/16384" in note for note in plan.notes)
    assert any("was named" in note for note in plan_restore(found, Target(), backup=bad.name).notes)


@pytest.mark.parametrize("more", [{"problem": "its metadata is missing"}, {"delta_of": "base_1"}])
def test_a_backup_with_a_problem_is_never_used(more):
    bad = backup(10.1, 11.5, minute=60, **more)
    found = catalog([backup(3.2, 4.5), bad], {1: range(3, 21)})
    assert plan_restore(found, Target()).backup.start_lsn == at(3.2)
    assert "cannot be restored" in refused(found, Target(), backup=bad.name).message


# -- holes and losses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [Target(), Target("immediate")])
def test_wal_missing_inside_the_backup_is_refused(target):
    error = refused(catalog([backup(3.2, 5.5)], {1: [3, 5, 6]}), target)
    assert "WAL segment 000000010000000000000004 is missing" in error.message
    assert "needs it to" in error.detail


def test_a_hole_before_the_end_is_refused_unless_loss_is_accepted():
    with_hole = catalog([backup(3.2, 4.5)], {1: [3, 4, 5, 7, 8]})
    error = refused(with_hole, Target())
    assert "000000010000000000000006 is missing" in error.message
    assert "000000010000000000000007" in error.detail
    plan = plan_restore(with_hole, Target(), accept_loss=True)
    assert numbers(plan) == [3, 4, 5]


@pytest.mark.parametrize("target", [Target(), Target("immediate")])
def test_with_accepted_loss_a_backup_that_lacks_its_wal_gives_way_to_an_older_one(target):
    """What the refusal promises: --accept-loss recovers to the hole."""
    found = catalog([backup(3.2, 4.5), backup(7.2, 8.5, minute=60)], {1: [3, 4, 5, 6, 8, 9]})
    error = refused(found, target)
    assert "000000010000000000000007 is missing" in error.message
    assert "--accept-loss" in error.hint
    plan = plan_restore(found, target, accept_loss=True)
    assert plan.backup == found.backups[0]
    assert numbers(plan) == ([3, 4, 5, 6] if target == Target() else [3, 4])
    assert any(f"{found.backups[1].name} is newer but not used: WAL segment" in note for note in plan.notes)
    assert "is missing" in refused(found, target, accept_loss=True, backup=found.backups[1].name).message


def test_a_hole_behind_the_target_does_not_matter():
    with_hole = catalog([backup(3.2, 4.5)], {1: [3, 4, 5, 7, 8]})
    plan = plan_restore(with_hole, Target("lsn", lsn=at(4.7)), evidence=stop_at(4.7))
    assert numbers(plan) == [3, 4]


def test_a_target_behind_a_hole_names_the_hole():
    with_hole = catalog([backup(3.2, 4.5)], {1: [3, 4, 5, 7, 8]})
    assert "is missing" in refused(with_hole, Target("lsn", lsn=at(7.5))).message


def test_an_end_before_what_was_confirmed_is_refused_unless_loss_is_accepted():
    error = refused(simple(), Target(), last_confirmed=(1, at(21.7)))
    assert "had been confirmed" in error.message
    assert "--accept-loss" in error.hint
    assert plan_restore(simple(), Target(), last_confirmed=(1, at(21.7)), accept_loss=True).end == at(21.5)
    assert plan_restore(simple(), Target(), last_confirmed=(1, at(21.5))).end == at(21.5)


# -- timelines ------------------------------------------------------------------------------------------------------


def forked(child_segments=range(8, 12), child_tails=None, **more) -> Catalog:
    """Timeline 2 left timeline 1 in the middle of segment 8; timeline 1 went on to segment 9 and half of 10."""
    history = (2, f"1\t{at(8.5)}\tno recovery target specified\n")
    return catalog(
        [backup(3.2, 4.5)],
        {1: range(3, 10), 2: child_segments},
        {(1, 10): 0.5, **(child_tails or {})},
        forks=[history],
        **more,
    )


def test_the_segment_of_a_fork_comes_from_the_child():
    plan = plan_restore(forked(), Target())
    assert plan.timeline == 2
    assert files(plan)[4:] == [(1, 7, "segment"), *((2, n, "segment") for n in range(8, 12))]
    assert plan.histories == (2,)


def test_the_childs_tail_serves_for_the_segment_of_the_fork():
    plan = plan_restore(forked([], {(2, 8): 0.7}), Target())
    assert files(plan)[-1] == (2, 8, "tail")
    assert plan.end == at(8.7)


@pytest.mark.parametrize("parent", ["segment", "tail"])
def test_without_the_child_the_parents_segment_is_cut_at_the_fork(parent):
    found = forked([])
    if parent == "tail":
        found = catalog(found.backups, {1: range(3, 8)}, {(1, 8): 0.9}, forks=[(2, f"1\t{at(8.5)}\tpromoted\n")])
    plan = plan_restore(found, Target(), timeline=2)
    assert files(plan)[-1] == (1, 8, "cut")
    assert plan.wal[-1].used_bytes == SIZE // 2
    assert plan.end == at(8.5)
    assert any("no WAL of its own" in note for note in plan.notes)


def test_a_parents_tail_before_the_fork_is_never_used():
    found = catalog([backup(3.2, 4.5)], {1: range(3, 8)}, {(1, 8): 0.3}, forks=[(2, f"1\t{at(8.5)}\tpromoted\n")])
    plan = plan_restore(found, Target(), timeline=2, accept_loss=True)
    assert files(plan)[-1] == (1, 7, "segment")


def test_the_old_timeline_can_be_asked_for_with_its_own_tail():
    plan = plan_restore(forked(), Target(), timeline=1)
    assert files(plan)[-3:] == [(1, 8, "segment"), (1, 9, "segment"), (1, 10, "tail")]
    assert plan.histories == (2,)


def test_the_default_branch_is_the_one_last_written():
    plan = plan_restore(forked(), Target(), default_timeline=1)
    assert plan.timeline == 1
    assert [(b.timeline, b.end) for b in plan.branches] == [(2, at(12))]
    assert any("--timeline 2" in note for note in plan.notes)
    assert plan_restore(forked(), Target(), default_timeline=7).timeline == 2


def test_a_backup_decides_the_branch_when_nothing_else_is_said():
    """The backup was made on timeline 1 past the fork: timeline 2 does not have it."""
    found = forked()
    late = backup(9.1, 9.5, minute=90)
    found = Catalog(**{**{f: getattr(found, f) for f in found.__dataclass_fields__}, "backups": (*found.backups, late)})
    assert plan_restore(found, Target(), backup=late.name).timeline == 1
    error = refused(found, Target(), backup=late.name, timeline=2)
    assert "not a child" in error.message
    assert plan_restore(found, Target()).backup == found.backups[0]


def test_a_timeline_that_is_not_there_is_refused():
    assert "no timeline 5" in refused(forked(), Target(), timeline=5).message


def test_a_path_that_breaks_off_before_the_fork_is_refused():
    found = catalog([backup(3.2, 4.5)], {1: [3, 4, 5], 2: [8, 9]}, forks=[(2, f"1\t{at(8.5)}\tpromoted\n")])
    assert "000000010000000000000006 is missing" in refused(found, Target()).message
    assert plan_restore(found, Target("immediate")).end == at(4.5)


def test_two_forks_in_one_segment():
    text = f"1\t{at(8.2)}\ta\n2\t{at(8.6)}\tb\n"
    found = catalog(
        [backup(3.2, 4.5)], {1: range(3, 10), 2: [8], 3: [8, 9]}, forks=[(2, f"1\t{at(8.2)}\ta\n"), (3, text)]
    )
    plan = plan_restore(found, Target())
    assert files(plan)[-3:] == [(1, 7, "segment"), (3, 8, "segment"), (3, 9, "segment")]


def test_a_tail_of_a_timeline_in_the_middle_of_the_path_is_never_used():
    text = f"1\t{at(5.5)}\ta\n2\t{at(8.5)}\tb\n"
    found = catalog(
        [backup(3.2, 4.5)],
        {1: range(3, 6), 2: [5, 6], 3: [8]},
        {(2, 7): 1.0},
        forks=[(2, f"1\t{at(5.5)}\ta\n"), (3, text)],
    )
    assert "000000020000000000000007 is missing" in refused(found, Target(), timeline=3).message


# -- what is printed ------------------------------------------------------------------------------------------------


def test_plans_as_documents_are_stable():
    """Compare with the golden file; run with WRITE_GOLDEN=1 to write it anew, and read the difference."""
    plans = {
        "latest": plan_restore(simple(marks=[(90, 1, 21)]), Target()),
        "time": plan_restore(simple(), Target("time", time=minutes(70)), evidence=stop_at(14.2, minute=71)),
        "time after the last commit": plan_restore(
            simple(marks=[(90, 1, 21)]), Target("time", time=minutes(85)), evidence=nothing_found(21.3)
        ),
        "other branch": plan_restore(forked(), Target("immediate"), timeline=2),
        "cut at the fork": plan_restore(forked([]), Target(), timeline=2),
    }
    found = {
        name: {"plan": plan_document(plan, staged=True), "lines": [list(row) for row in plan_lines(plan, staged=True)]}
        for name, plan in plans.items()
    }
    text = json.dumps(found, indent=1) + "\n"
    if os.environ.get("WRITE_GOLDEN"):
        GOLDEN.write_text(text)
    assert json.loads(GOLDEN.read_text()) == json.loads(text)
