"""Plans of expiry: which backups stay and why, which WAL goes, and when nothing may."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.lsn import Lsn
from pgbackup.core.retention import ExpiryPlan, LastListing, RetentionPolicy, UnderWay, catalog_after, plan_expiry
from pgbackup.core.retention_policy import span_text
from tests.made_catalog import at, backup, catalog, minutes

DAY = 24 * 60
NOW = minutes(10 * DAY)
NONE = RetentionPolicy(backups=0, window=timedelta(0))


def daily(count: int, **more) -> list[Backup]:
    """Backups at noon of each day, ten segments apart, from segment 10."""
    return [backup(10 * n + 10.2, 10 * n + 11.5, minute=n * DAY, **more) for n in range(count)]


def plan(found: Catalog, policy: RetentionPolicy = NONE, now: datetime = NOW, **more) -> ExpiryPlan:
    return plan_expiry(found, policy, now, UTC, **more)


def kept(made: ExpiryPlan) -> list[int]:
    """The first segments of the backups that stay, by time."""
    return [int(v.backup.start_lsn) >> 20 for v in made.backups if v.keep]


def reasons(made: ExpiryPlan, start: int) -> tuple[str, ...]:
    return next(v.reasons for v in made.backups if int(v.backup.start_lsn) >> 20 == start)


def wal(made: ExpiryPlan) -> list[tuple[int, int, int]]:
    return [(r.timeline, r.oldest, r.newest) for r in made.wal]


# -- which backups ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (NONE, [50]),
        (RetentionPolicy(backups=2, window=timedelta(0)), [40, 50]),
        (RetentionPolicy(backups=9, window=timedelta(0)), [10, 20, 30, 40, 50]),
        (RetentionPolicy(backups=1, window=timedelta(days=7)), [40, 50]),
        (RetentionPolicy(backups=1, window=timedelta(days=6, hours=23)), [40, 50]),
        (RetentionPolicy(backups=1, window=timedelta(days=6)), [50]),
        (RetentionPolicy(backups=0, window=timedelta(0), daily=3), [30, 40, 50]),
        (RetentionPolicy(backups=0, window=timedelta(0), weekly=2), [20, 50]),
        (RetentionPolicy(backups=0, window=timedelta(0), monthly=2), [10, 50]),
        (RetentionPolicy(backups=0, window=timedelta(0), yearly=3), [50]),
    ],
)
def test_what_the_policy_keeps(policy: RetentionPolicy, expected: list[int]) -> None:
    """The first backup is of Saturday 2026-01-31; ten days after it the clock shows."""
    assert kept(plan(catalog(daily(5), {1: range(5, 60)}), policy)) == expected


def test_every_reason_is_given() -> None:
    made = plan(
        catalog([*daily(3), backup(40.2, 41.5, minute=9 * DAY, permanent=True)], {1: range(5, 60)}),
        RetentionPolicy(backups=2, window=timedelta(days=7), daily=1, weekly=3),
    )
    assert reasons(made, 10) == ("nothing needs it",)
    assert reasons(made, 20) == ("weekly 2026-W05",)
    assert reasons(made, 30) == ("one of the newest 2", "needed for the window of 7 d", "weekly 2026-W06")
    assert reasons(made, 40) == (
        "newest restorable", "one of the newest 2", "inside the window of 7 d", "daily 2026-02-09", "weekly 2026-W07",
        "permanent",
    )  # fmt: skip


def test_days_are_those_of_the_zone() -> None:
    pair = [backup(10, 11, minute=0), backup(20, 21, minute=11.5 * 60)]
    policy = RetentionPolicy(backups=0, window=timedelta(0), daily=2)
    assert kept(plan_expiry(catalog(pair, {1: range(5, 30)}), policy, NOW, UTC)) == [20]
    assert kept(plan_expiry(catalog(pair, {1: range(5, 30)}), policy, NOW, ZoneInfo("Europe/Berlin"))) == [10, 20]


def test_order_is_by_time_not_by_lsn_or_name() -> None:
    """A failover went back: the newer backup has the lower LSN."""
    old, new = backup(30, 31, minute=0), backup(20, 21, minute=60, timeline=2)
    found = catalog([old, new], {1: range(5, 40), 2: range(15, 25)}, forks=[(2, "1\t0/F80000\tx\n")])
    assert kept(plan(found)) == [20]


def test_a_broken_backup_fills_no_place() -> None:
    backups = daily(4)
    backups[2] = replace(backups[2], problem="its documents are damaged")
    backups[0] = replace(backups[0], corrupt_files=("base/5/1259",))
    made = plan(catalog(backups, {1: range(5, 60)}), RetentionPolicy(backups=2, window=timedelta(0)))
    assert kept(made) == [20, 30, 40]
    assert reasons(made, 30) == ("not restorable, but newer than the oldest restorable backup kept",)
    assert reasons(made, 10) == ("not restorable, and older than the oldest restorable backup kept",)


def test_an_unreadable_backup_is_as_old_as_its_seal() -> None:
    backups = daily(3)
    epoch = datetime.fromtimestamp(0, UTC)
    unreadable = replace(
        backups[1], start_lsn=Lsn(0), stop_lsn=Lsn(0), finished=epoch, started=epoch, problem="damaged"
    )
    found = catalog([backups[0], unreadable, backups[2]], {1: range(5, 60)})
    made = plan(found, RetentionPolicy(backups=2, window=timedelta(0)))
    assert not made.removed
    assert wal(made) == [(1, 5, 9)]
    assert made.removed == ()


def test_a_permanent_backup_whose_stop_is_not_known_keeps_wal_to_the_next_one() -> None:
    """Its documents may be mended, and the next begins after it had ended."""
    backups = daily(4)
    for unknown in ({}, {"start_lsn": Lsn(0)}):
        damaged = replace(backups[0], stop_lsn=Lsn(0), problem="damaged", permanent=True, **unknown)
        made = plan(catalog([damaged, *backups[1:]], {1: range(5, 60)}))
        assert made.removed == tuple(backups[1:3])
        assert wal(made) == [(1, 5, 9), (1, 21, 39)]


def test_deltas_keep_what_they_build_on_and_go_before_it() -> None:
    full, delta, last = daily(3)
    delta = replace(delta, delta_of=full.name)
    last = replace(last, delta_of=delta.name)
    found = catalog([full, delta, last], {1: range(5, 60)})
    made = plan(found)
    assert kept(made) == [10, 20, 30]
    assert reasons(made, 20) == (f"the delta {last.name} needs it",)
    assert wal(made) == [(1, 5, 9), (1, 12, 19), (1, 22, 29)]
    alone = backup(50.2, 51.5, minute=4 * DAY)
    made = plan(catalog([full, delta, last, alone], {1: range(5, 60)}))
    assert made.removed == (last, delta, full)
    broken = plan(catalog([delta, last, alone], {1: range(5, 60)}), RetentionPolicy(5, timedelta(0)))
    assert kept(broken) == [50]


# -- which WAL ----------------------------------------------------------------------------------------------------


def test_a_permanent_backup_keeps_its_own_wal_only() -> None:
    first, *rest = daily(3)
    made = plan(catalog([replace(first, permanent=True), *rest], {1: range(5, 40)}, {(1, 40): 0.5}))
    assert wal(made) == [(1, 5, 9), (1, 12, 29)]
    assert made.wal[0].reason == f"{first.name} needs it"
    assert made.wal[1].reason == f"{rest[1].name} starts there"


def forked(**more) -> Catalog:
    """Timeline 1 to segment 40, timeline 2 from 25.5 on; a backup on each, the first on day 0, the second on day 2."""
    backups = [backup(10.2, 11.5, minute=0), backup(30.2, 31.5, timeline=2, minute=2 * DAY)]
    return catalog(
        backups, {1: range(5, 40), 2: range(25, 45)}, {(1, 40): 0.5, (2, 45): 0.5},
        forks=[(2, "1\t0/1980000\tno recovery target specified\n")], **more,
    )  # fmt: skip


def test_an_ended_timeline_goes_with_its_tail_when_nothing_leads_to_it() -> None:
    made = plan(forked(marks=[(0, 1, 12), (2 * DAY, 2, 32)]), RetentionPolicy(1, timedelta(days=7)))
    assert kept(made) == [30]
    assert wal(made) == [(1, 5, 40), (2, 25, 29)]
    assert made.wal[0].tails == 1
    assert made.marks[0].timeline == 1
    assert made.histories == ()


def test_both_branches_of_a_fork_stay_with_the_backup_before_it() -> None:
    made = plan(forked(), RetentionPolicy(backups=2, window=timedelta(0)))
    assert wal(made) == [(1, 5, 9)]


def test_a_timeline_of_the_window_stays_though_another_is_newer() -> None:
    """The old primary went on: its marks are of the window."""
    found = forked(marks=[(0, 1, 12), (9 * DAY, 1, 40), (2 * DAY, 2, 32)])
    made = plan(found, RetentionPolicy(1, timedelta(days=7)))
    assert reasons(made, 10) == ("needed for the window of 7 d",)
    assert wal(made) == [(1, 5, 9)]


def test_history_files_go_when_nothing_below_or_at_them_is_left() -> None:
    first, second, third = (backup(n * 10, n * 10 + 1, timeline=n, minute=n * DAY) for n in (1, 2, 3))
    forks = [(2, "1\t0/F00000\tx\n"), (3, "1\t0/F00000\tx\n2\t0/1900000\tx\n")]
    found = catalog([first, second, third], {1: range(5, 15), 2: range(15, 26), 3: range(25, 35)}, forks=forks)
    made = plan(found)
    assert (kept(made), made.histories) == ([30], (2,))
    assert wal(made) == [(1, 5, 14), (2, 15, 25), (3, 25, 29)]
    assert plan(catalog_after(found, made)).is_empty
    permanent = replace(first, permanent=True)
    made = plan(replace(found, backups=(permanent, second, third)))
    assert (kept(made), made.histories) == ([10, 30], ())


def test_without_a_history_wal_stays_and_its_backups_are_not_restorable() -> None:
    found = forked()
    strange = replace(found, segments={**found.segments, 3: range(3, 50)})
    assert not [r for r in plan(strange).wal if r.timeline == 3]
    older = replace(found, histories={}, segments={**found.segments})
    made = plan(replace(older, backups=tuple(replace(b, permanent=b.timeline == 1) for b in older.backups)))
    assert wal(made) == []
    assert "cannot be restored" in made.refusal or "not restorable" in made.refusal


def test_a_backup_under_way_keeps_its_wal() -> None:
    made = plan(catalog(daily(3), {1: range(5, 40)}), under_way=[UnderWay(1, at(25.5))])
    assert wal(made) == [(1, 5, 24)]
    assert made.wal[0].reason == "a backup under way starts there"


def test_marks_around_a_permanent_backup_stay() -> None:
    first, *rest = daily(3)
    marks = [(-120, 1, 8), (1, 1, 12), (300, 1, 13), (2 * DAY, 1, 32)]
    made = plan(catalog([replace(first, permanent=True), *rest], {1: range(5, 40)}, marks=marks))
    assert [mark.lsn for mark in made.marks] == [at(8), at(13)]


def test_marks_of_the_window_stay_though_all_backups_are_newer() -> None:
    """They prove that a timeline was written to in the window."""
    found = catalog(daily(2), {1: range(5, 40)}, marks=[(-9 * DAY, 1, 4), (-DAY, 1, 8)])
    made = plan(found, RetentionPolicy(2, timedelta(days=12)))
    assert [mark.lsn for mark in made.marks] == [at(4)]


# -- refusals -----------------------------------------------------------------------------------------------------


def test_refusals() -> None:
    found = catalog(daily(4), {1: range(5, 60)})
    broken = replace(found.backups[3], problem="its documents are damaged")
    there = frozenset(b.name for b in found.backups)
    cases: list[tuple[str, ExpiryPlan]] = [
        ("no backup can be restored", plan(catalog([], {1: range(5)}))),
        ("no backup can be restored", plan(catalog(daily(2), {}))),
        ("the newest backup", plan(replace(found, backups=(*found.backups[:3], broken)))),
        ("at least 3 must be", plan(found, RetentionPolicy(2, timedelta(0), min_restorable=3))),
        ("the clock says", plan(found, now=minutes(3 * DAY - 61))),
        ("not in the segment that it is named for", plan(replace(found, segment_bytes=2 << 20))),
        ("several clusters", plan(found, previous=LastListing(7, frozenset()))),
        ("several clusters", plan(replace(found, system_identifier=2))),
        ("did not remove: base_gone", plan(found, previous=LastListing(1, there | {"base_gone"}))),
    ]
    for text, made in cases:
        assert text in made.refusal
        assert made.hint.endswith(".")
        assert made.is_empty


def test_no_refusals() -> None:
    found = catalog(daily(4), {1: range(5, 60)})
    some = frozenset({found.backups[0].name, "base_gone"})
    assert not plan(found, previous=LastListing(1, some, frozenset({"base_gone"}))).refusal
    assert not plan(found, previous=LastListing(None, frozenset())).refusal
    assert not plan(found, now=minutes(3 * DAY - 59)).refusal


def test_a_policy_is_checked() -> None:
    for wrong in ({"backups": -1}, {"window": timedelta(-1)}, {"min_restorable": 0}):
        with pytest.raises(ValueError, match="not a retention policy"):
            RetentionPolicy(**wrong)
    spans = [timedelta(days=7), timedelta(hours=36), timedelta(minutes=90), timedelta(seconds=5), timedelta(0)]
    assert [span_text(span) for span in spans] == ["7 d", "36 h", "90 min", "5 s", "0 s"]
