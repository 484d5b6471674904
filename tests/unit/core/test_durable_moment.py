"""A moment of the server's clock is proven by WAL that is durable, neither earlier nor only when all is quiet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.durable_moment import DurableMoment, WalMoment
from pgbackup.core.lsn import Lsn


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60)), min_size=1, max_size=60))
def test_only_what_is_durable_is_proven_and_no_moment_goes_back(steps: list[tuple[int, int]]) -> None:
    """Each step the server writes so much, says so, and so much of it becomes durable."""
    moments = DurableMoment()
    said = set()
    end = durable = 0
    for clock, (written, stored) in enumerate(steps, 1):
        end += written
        moment = WalMoment(clock, Lsn(end))
        said.add(moment)
        before = moments.proven
        moments.said(moment, Lsn(durable))
        durable = min(end, durable + stored)
        moments.reached(Lsn(durable))
        if (proven := moments.proven) is not None:
            assert proven in said
            assert proven.lsn <= durable
            assert before is None or proven.clock >= before.clock
    moments.reached(Lsn(end))
    assert moments.proven == WalMoment(len(steps), Lsn(end))


def test_a_database_that_is_never_quiet_is_followed() -> None:
    """What is durable is always behind what was said last."""
    moments = DurableMoment()
    for clock in range(1, 100):
        moments.said(WalMoment(clock, Lsn(clock * 100)), Lsn(max(0, clock - 3) * 100))
        assert clock < 10 or (moments.proven is not None and moments.proven.clock >= clock - 8)


def test_a_quiet_database_goes_on() -> None:
    moments = DurableMoment()
    for clock in (5, 6, 7):
        moments.said(WalMoment(clock, Lsn(100)), Lsn(100))
        assert moments.proven == WalMoment(clock, Lsn(100))
