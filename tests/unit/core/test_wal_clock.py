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


def test_a_stream_that_is_told_nothing_does_not_say_that_nothing_is_written() -> None:
    """A sender that hangs: what it said last stands for ever, and all of that is durable."""
    clock = WalClock()
    clock.note(NOON, Lsn(100))
    for minute in range(1, 61):
        for second in range(60):
            clock.heard(NOON + (minute * 60 + second - 60) * SECOND, Lsn(100))
        clock.note(NOON + minute * 60 * SECOND, Lsn(100 + minute))
    assert clock.reached(Lsn(100)) == NOON
    assert clock.passed(Lsn(100)) == NOON + 60 * SECOND


def test_news_of_the_stream_shows_that_there_was_none_before() -> None:
    clock = WalClock()
    clock.note(NOON, Lsn(100))
    for second in range(1, 50):
        clock.heard(NOON + second * SECOND, Lsn(100))
    clock.heard(NOON + 50 * SECOND, Lsn(200))
    assert clock.reached(Lsn(100)) == NOON + 49 * SECOND


def test_a_stream_that_lags_takes_nothing_back() -> None:
    """It is told later what the server, when asked, has said already; that is no server that was set back."""
    clock = WalClock()
    for second in range(0, 600, 10):
        clock.note(NOON + second * SECOND, Lsn(1000 + second))
        clock.heard(NOON + (second + 1) * SECOND, Lsn(1000 + second - 5))
    assert clock.reached(Lsn(1000)) == NOON


def test_an_answer_that_is_a_moment_older_than_what_was_heard_takes_little_back() -> None:
    clock = WalClock()
    clock.note(NOON, Lsn(100))
    clock.heard(NOON + 60 * SECOND, Lsn(200))
    clock.note(NOON + 59 * SECOND, Lsn(190))
    assert clock.reached(Lsn(100)) == NOON
    clock.note(NOON - 3600 * SECOND, Lsn(300))
    assert clock.reached(Lsn(290)) is None, "the clock was set back by an hour"
