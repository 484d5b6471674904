"""Deletions in the words of WAL-E and WAL-G as policies: chains, and what the plan then keeps."""

from __future__ import annotations

from datetime import UTC, timedelta

import pytest

from pgbackup.core.catalog import Catalog
from pgbackup.core.retention import plan_expiry
from pgbackup.core.retention_request import Before, NotDeletable, Retain, oldest_to_keep, policy_for
from tests.made_catalog import backup, catalog, minutes


def chains() -> Catalog:
    """Full 1, its delta 2, full 3, delta 4 of the first chain, delta 5 of 3."""
    first, third = backup(1.1, 1.5, minute=1), backup(3.1, 3.5, minute=3)
    second = backup(2.1, 2.5, minute=2, delta_of=first.name)
    fourth = backup(4.1, 4.5, minute=4, delta_of=second.name)
    fifth = backup(5.1, 5.5, minute=5, delta_of=third.name)
    return catalog([first, second, third, fourth, fifth], {1: range(9)})


def kept(found: Catalog, request: Retain | Before) -> list[int]:
    """The numbers of the backups that stay."""
    oldest = oldest_to_keep(found, request)
    assert oldest is not None
    plan = plan_expiry(found, policy_for(found, oldest, min_restorable=1), minutes(60), UTC)
    assert not plan.refusal
    return [int(v.backup.start_lsn) >> 20 for v in plan.backups if v.keep]


@pytest.mark.parametrize(
    ("request_", "numbers"),
    [
        (Retain(3), [3, 4, 5, 1, 2]),
        (Retain(1, "FULL"), [3, 4, 5, 1, 2]),
        (Retain(2, "FULL"), [1, 2, 3, 4, 5]),
        (Retain(1, "FIND_FULL"), [3, 4, 5, 1, 2]),
        (Before(minutes(2.5)), [3, 4, 5, 1, 2]),
        (Before(minutes(4.5), "FIND_FULL"), [3, 4, 5, 1, 2]),
    ],
    ids=str,
)
def test_chains_stay_whole(request_: Retain | Before, numbers: list[int]) -> None:
    """The delta 4 keeps its chain, whatever lies between."""
    assert kept(chains(), request_) == sorted(numbers)


def test_a_chain_goes_as_a_whole() -> None:
    found = catalog(
        [
            first := backup(1.1, 1.5, minute=1),
            backup(2.1, 2.5, minute=2, delta_of=first.name),
            backup(3.1, 3.5, minute=3),
        ],
        {1: range(9)},
    )
    assert kept(found, Retain(1)) == [3]


@pytest.mark.parametrize(
    "request_", [Retain(1), Retain(2), Before("base_000000010000000000000002"), Before(minutes(4))]
)
def test_a_delta_is_not_the_oldest_to_keep_unless_its_chain_may_stay(request_: Retain | Before) -> None:
    with pytest.raises(NotDeletable, match="is a delta of base_") as caught:
        oldest_to_keep(chains(), request_)
    assert "FIND_FULL" in caught.value.hint


def test_a_time_after_all_backups_leaves_nothing_to_remove() -> None:
    assert oldest_to_keep(chains(), Before(minutes(6))) is None
    assert oldest_to_keep(chains(), Retain(3, "FULL")) is None
    assert oldest_to_keep(catalog([], {}), Retain(1)) is None


def test_time_counts_and_not_the_name() -> None:
    """After a return to an older state the newest backup may have the lowest LSN."""
    found = catalog([backup(7.1, 7.5, minute=1), backup(1.1, 1.5, minute=2)], {1: range(9)})
    assert kept(found, Retain(1)) == [1]


def test_after_keeps_more_and_never_less() -> None:
    found = catalog([backup(n + 0.1, n + 0.5, minute=n) for n in range(1, 6)], {1: range(9)})
    assert kept(found, Retain(2, after=minutes(2))) == [2, 3, 4, 5]
    assert kept(found, Retain(3, after=minutes(5))) == [3, 4, 5]
    assert kept(found, Retain(2, after=minutes(9))) == [4, 5]


def test_another_branch_that_may_still_be_needed_stays() -> None:
    """The policy counts, and then the guards of every expiry add what recovery may need."""
    old = backup(1.1, 1.5, minute=1, timeline=1)
    new = backup(5.1, 5.5, minute=50, timeline=2)
    found = catalog([old, new], {1: range(4), 2: range(3, 9)}, forks=[(2, "1\t0/380000\tpromoted\n")])
    oldest = oldest_to_keep(found, Retain(1))
    assert oldest is not None
    plan = plan_expiry(found, policy_for(found, oldest, min_restorable=1), minutes(60), UTC)
    assert [v.backup.name for v in plan.backups if v.keep] == [new.name]
    assert policy_for(found, oldest, min_restorable=1).window == timedelta(0)
