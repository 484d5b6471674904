"""The age of WAL that is not durable is never understated, however many samples were thinned."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.lsn import Lsn
from pgbackup.core.wal_clock import WalClock
from tests.made_catalog import NOON

SECOND = timedelta(seconds=1)


def test_nothing_known_after_the_durable_end_is_no_age() -> None:
    clock = WalClock()
    assert clock.age(Lsn(5), NOON) == timedelta(0)
    clock.note(NOON, Lsn(5))
    assert clock.age(Lsn(5), NOON + 60 * SECOND) == timedelta(0)


def test_the_age_counts_from_the_newest_durable_sample() -> None:
    clock = WalClock()
    for second, lsn in ((0, 100), (1, 200), (2, 300)):
        clock.note(NOON + second * SECOND, Lsn(lsn))
    assert clock.reached(Lsn(250)) == NOON + SECOND
    assert clock.age(Lsn(250), NOON + 10 * SECOND) == 9 * SECOND


def test_wal_before_every_sample_has_no_known_age() -> None:
    clock = WalClock()
    clock.note(NOON, Lsn(100))
    assert clock.age(Lsn(50), NOON) is None


def test_an_idle_server_moves_the_moment_on() -> None:
    clock = WalClock()
    for second in range(100):
        clock.note(NOON + second * SECOND, Lsn(100))
    assert clock.reached(Lsn(100)) == NOON + 99 * SECOND
    assert len(clock._lsns) == 2


def test_a_position_that_went_back_starts_anew() -> None:
    clock = WalClock()
    clock.note(NOON, Lsn(100))
    clock.note(NOON + SECOND, Lsn(50))
    assert clock.reached(Lsn(70)) == NOON + SECOND


@given(st.lists(st.integers(0, 50), min_size=1, max_size=300), st.integers(0, 10_000))
def test_the_age_is_never_understated(steps: list[int], durable: int) -> None:
    import pgbackup.core.wal_clock as module

    clock, lsn, written = WalClock(), 0, []
    limit, module._MOST_SAMPLES = module._MOST_SAMPLES, 16
    try:
        for second, step in enumerate(steps):
            lsn += step
            written.append((NOON + second * SECOND, lsn))
            clock.note(*written[-1][:1], Lsn(lsn))
    finally:
        module._MOST_SAMPLES = limit
    now = NOON + len(steps) * SECOND
    truth = next((now - moment for moment, end in written if end > durable), timedelta(0))
    age = clock.age(Lsn(durable), now)
    assert age is None or age >= truth
