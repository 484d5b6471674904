"""What could be lost is never understated: samples and marks count only up to what is durable."""

from __future__ import annotations

from datetime import timedelta

from pgbackup.core.durability import durability
from pgbackup.core.wal_clock import WalClock
from tests.made_catalog import at, catalog, minutes
from tests.made_health import NOW, green_catalog, server

BEHIND = server(position=at(30), position_after=at(30))


def test_a_durable_server_loses_nothing() -> None:
    found = durability(green_catalog(), server(), WalClock(), NOW)
    assert (found.wal_age, found.moment) == (timedelta(0), NOW)


def test_without_samples_and_marks_the_age_is_unknown() -> None:
    found = durability(green_catalog(), BEHIND, WalClock(), NOW)
    assert (found.wal_age, found.moment) == (None, None)


def test_samples_say_when_the_durable_end_was_reached() -> None:
    clock = WalClock()
    clock.note(minutes(69), at(21))
    clock.note(minutes(69.5), at(25))
    found = durability(green_catalog(), BEHIND, clock, NOW)
    assert (found.wal_age, found.moment) == (timedelta(minutes=1), minutes(69))


def test_marks_count_when_samples_do_not_reach_back() -> None:
    clock = WalClock()
    clock.note(minutes(69), at(25))
    marked = green_catalog(marks=[(50, 1, 18), (64, 1, 21), (66, 1, 22)])
    assert durability(marked, BEHIND, clock, NOW).wal_age == timedelta(minutes=6)


def test_the_servers_own_clock_names_the_moment() -> None:
    clock = WalClock()
    clock.note(minutes(69), at(21))
    ahead = server(position=at(30), position_after=at(30), clock=NOW + timedelta(seconds=20))
    found = durability(green_catalog(), ahead, clock, NOW)
    assert found.moment == minutes(69) + timedelta(seconds=20)
    assert found.wal_age == timedelta(minutes=1)


def test_without_the_server_only_marks_count() -> None:
    found = durability(green_catalog(marks=[(50, 1, 18)]), None, WalClock(), NOW)
    assert (found.wal_age, found.moment) == (None, minutes(50))


def test_without_a_backup_nothing_is_durable() -> None:
    assert durability(catalog([], {1: range(3, 30)}), server(), WalClock(), NOW).wal_age is None


def test_what_was_never_seen_to_be_durable_is_at_least_as_old_as_we_see_it() -> None:
    clock = WalClock()
    clock.note(minutes(30), at(25))
    clock.note(minutes(69), at(28))
    found = durability(green_catalog(), BEHIND, clock, NOW)
    assert (found.wal_age, found.moment, found.behind_for) == (None, None, timedelta(minutes=40))


def test_a_mark_of_while_the_clock_was_ahead_does_not_keep_the_loss_young() -> None:
    """The server's clock was a day ahead for a minute. Until that day had come, what was missing was 0 s old."""
    marked = green_catalog(marks=[(50, 1, 18), (1440 + 51, 1, 19), (52, 1, 20), (1440 + 52, 1, 20)])
    found = durability(marked, BEHIND, WalClock(), NOW)
    assert (found.wal_age, found.moment) == (NOW - minutes(52), minutes(52))
    assert durability(marked, None, WalClock(), NOW).moment == minutes(52)


def test_a_mark_of_while_the_clock_was_an_hour_ahead_is_not_the_newest_once_that_has_passed() -> None:
    marked = green_catalog(marks=[(65, 1, 18), (10, 1, 20)])
    assert durability(marked, BEHIND, WalClock(), NOW).moment == minutes(10)
