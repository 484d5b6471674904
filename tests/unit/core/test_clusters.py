"""Two clusters in one prefix: an upgrade is one history that expires by time; what overlaps is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta

import pytest

from pgbackup.core.backup import Backup
from pgbackup.core.branches import branch_problems
from pgbackup.core.catalog import Catalog
from pgbackup.core.clusters import clusters_of
from pgbackup.core.health import evaluate
from pgbackup.core.recovery_path import choose_history
from pgbackup.core.recovery_plan import plan_restore
from pgbackup.core.recovery_target import Target
from pgbackup.core.retention import ExpiryPlan, LastListing, RetentionPolicy, catalog_after, plan_expiry
from tests.made_catalog import at, backup, catalog, minutes
from tests.made_health import LIMITS, NOW, green, keys, server

DAY = 24 * 60
OLD, NEW = 1, 2


def of(identifier: int, made: Backup) -> Backup:
    return replace(made, system_identifier=identifier, pg_version=150008 if identifier == OLD else 180001)


def upgraded(*, old_timeline: int = 1) -> Catalog:
    """The old cluster's backups of days 0 to 2 (segments 10, 20, 30), the new one's of days 3 to 5 (40, 50, 60).

    The new one begins in segment 38, on timeline 1 again. With another ``old_timeline`` the old one had been promoted
    in segment 5, and its history is still there.
    """
    olds = [of(OLD, backup(10 * n + 10.2, 10 * n + 11.5, timeline=old_timeline, minute=n * DAY)) for n in range(3)]
    news = [of(NEW, backup(10 * n + 40.2, 10 * n + 41.5, minute=(n + 3) * DAY)) for n in range(3)]
    forks = [(t, f"1\t{at(5.5)}\tno recovery target specified\n") for t in range(2, old_timeline + 1)]
    segments = {1: [*range(3, 36), *range(38, 70)]}
    if old_timeline > 1:
        segments = {1: [3, 4, 5, *range(38, 70)], old_timeline: [*range(5, 36)]}
    return catalog([*olds, *news], segments, forks=forks)


def plan(found: Catalog, policy: RetentionPolicy, day: float = 5.1, **more) -> ExpiryPlan:
    return plan_expiry(found, policy, minutes(day * DAY), UTC, **more)


def kept(made: ExpiryPlan) -> list[int]:
    assert not made.refusal, made.refusal
    return [int(v.backup.start_lsn) >> 20 for v in made.backups if v.keep]


def wal(made: ExpiryPlan) -> list[tuple[int, int, int]]:
    return [(each.timeline, each.oldest, each.newest) for each in made.wal]


@pytest.mark.parametrize("old_timeline", [1, 3])
@pytest.mark.parametrize(
    ("policy", "day", "expected"),
    [
        (RetentionPolicy(backups=4, window=timedelta(0)), 5.1, [30, 40, 50, 60]),
        (RetentionPolicy(backups=2, window=timedelta(0)), 5.1, [50, 60]),
        (RetentionPolicy(backups=1, window=timedelta(days=2.5)), 5.1, [30, 40, 50, 60]),
        (RetentionPolicy(backups=1, window=timedelta(days=1)), 5.1, [50, 60]),
        (RetentionPolicy(backups=1, window=timedelta(days=7)), 12.5, [60]),
    ],
)
def test_order_is_by_time_across_an_upgrade(
    policy: RetentionPolicy, day: float, expected: list[int], old_timeline: int
) -> None:
    found = upgraded(old_timeline=old_timeline)
    made = plan(found, policy, day)
    assert kept(made) == expected
    after = catalog_after(found, made)
    assert plan(after, policy, day).is_empty, "planned again it is done"
    assert all(not after.why_not_restorable(v.backup) for v in made.backups if v.keep)


def test_the_wal_of_the_old_cluster_goes_with_its_last_backup() -> None:
    policy = RetentionPolicy(backups=3, window=timedelta(0))
    assert wal(plan(upgraded(), policy)) == [(1, 3, 39)]
    assert wal(plan(upgraded(old_timeline=3), policy)) == [(1, 3, 39), (3, 5, 35)]
    four = replace(policy, backups=4)
    assert wal(plan(upgraded(), four)) == [(1, 3, 29)]
    assert wal(plan(upgraded(old_timeline=3), four)) == [(1, 3, 39), (3, 5, 29)]


def test_the_old_cluster_s_timeline_is_needed_while_the_window_begins_on_it() -> None:
    """Its last backup is older than the window, the new cluster's first one inside it."""
    made = plan(upgraded(old_timeline=3), RetentionPolicy(backups=1, window=timedelta(days=2.5)))
    (anchor,) = [v for v in made.backups if int(v.backup.start_lsn) >> 20 == 30]
    assert anchor.reasons == ("needed for the window of 60 h",)
    assert [each for each in wal(made) if each[0] == 3] == [(3, 5, 29)]


@pytest.mark.parametrize("claimed", [None, NEW])
def test_it_is_the_last_cluster_s_prefix(claimed: int | None) -> None:
    found = replace(upgraded(), system_identifier=claimed)
    assert not plan(found, RetentionPolicy(), previous=LastListing(claimed, frozenset())).refusal


def refused(found: Catalog, **more) -> str:
    made = plan(found, RetentionPolicy(backups=1, window=timedelta(0)), **more)
    assert not made.removed
    assert not made.wal
    return made.refusal


def test_what_was_taken_for_the_old_cluster_is_not_expired_for_the_new_one() -> None:
    """pgbackup runs for the old one there, or did: it may still be alive."""
    assert "the prefix was taken for 1, and the newest backup is of 2" in refused(
        replace(upgraded(), system_identifier=OLD)
    )
    assert "the prefix was taken for 1" in refused(upgraded(), previous=LastListing(OLD, frozenset()))


def test_two_that_write_in_turn_are_refused() -> None:
    found = upgraded()
    late = of(OLD, backup(35.2, 35.5, minute=4.5 * DAY))
    found = replace(found, backups=(*found.backups, late))
    assert "backups of one were made between those of another" in refused(found)


def test_names_that_mean_two_things_are_refused() -> None:
    """A new cluster, filled from a dump: its WAL begins at the beginning again, and has the names of the old one's."""
    olds = [of(OLD, backup(10 * n + 10.2, 10 * n + 11.5, minute=n * DAY)) for n in range(3)]
    new = of(NEW, backup(20.2, 21.5, timeline=2, minute=3 * DAY))
    found = catalog([*olds, new], {1: range(3, 36), 2: range(2, 25)}, forks=[(2, f"1\t{at(2)}\tx\n")])
    said = refused(found)
    assert f"2 begins at {at(20.2)}, before the end of the other, {at(31.5)}" in said


def test_backups_that_name_no_cluster_belong_to_any() -> None:
    found = upgraded()
    nameless = replace(backup(33.2, 33.4, minute=2.5 * DAY), system_identifier=0)
    found = replace(found, backups=(*found.backups, nameless))
    assert clusters_of(found).identifiers == (OLD, NEW)
    assert kept(plan(found, RetentionPolicy(4, timedelta(0)))) == [33, 40, 50, 60]


def test_a_restore_goes_to_the_new_cluster_though_the_old_one_had_higher_timelines() -> None:
    """The newest timeline by number is the old cluster's last: a restore without a word must not bring that back."""
    found = upgraded(old_timeline=3)
    assert choose_history(found, None, None, None).timeline == 1
    assert plan_restore(found, Target("latest")).backup.start_lsn == at(60.2)
    assert plan_restore(found, Target("latest"), timeline=3).backup.start_lsn == at(30.2)


def test_the_old_cluster_s_branches_and_its_end_alarm_nobody() -> None:
    found = upgraded(old_timeline=3)
    assert branch_problems(found, found.history(1), at(69)) == []
    moved = [replace(b, finished=NOW - timedelta(minutes=10 * n)) for n, b in enumerate(reversed(found.backups))]
    facts = green(server=server(system_identifier=NEW, position=at(70), position_after=at(70)))
    assert facts.repository is not None
    view = replace(facts.repository, catalog=replace(found, backups=tuple(moved)))
    assert keys(evaluate(replace(facts, repository=view), LIMITS, NOW)) == []
