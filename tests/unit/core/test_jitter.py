"""Fleets are spread out, and every cluster keeps its moment."""

from __future__ import annotations

from datetime import timedelta

from pgbackup.core.jitter import jitter
from tests.made_catalog import NOON

HOUR = timedelta(hours=1)


def test_a_fleet_is_spread_over_the_whole_time() -> None:
    drawn = [jitter(f"cluster-{number}", NOON, HOUR) for number in range(200)]
    assert all(timedelta(0) <= delay < HOUR for delay in drawn)
    quarters = {int(delay / (HOUR / 4)) for delay in drawn}
    assert quarters == {0, 1, 2, 3}


def test_a_restart_draws_the_same_and_another_day_another() -> None:
    assert jitter("a", NOON, HOUR) == jitter("a", NOON, HOUR)
    assert jitter("a", NOON, HOUR) != jitter("a", NOON + timedelta(days=1), HOUR)
    assert jitter("a", NOON, timedelta(0)) == timedelta(0)
