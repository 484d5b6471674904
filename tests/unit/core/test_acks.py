"""The confirmed LSN never passes a hole: a failed upload adds nothing, in whatever order the others finish."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.acks import Acks
from pgbackup.core.lsn import Lsn

START = 1000
ranges = st.tuples(st.integers(0, 60), st.integers(1, 25)).map(lambda r: (START - 10 + r[0], START - 10 + r[0] + r[1]))


def _model(added: list[tuple[int, int]]) -> int:
    """The same by brute force: the first byte from the start that nobody stored."""
    durable = {byte for start, end in added for byte in range(start, end)}
    position = START
    while position in durable:
        position += 1
    return position


def test_a_failed_upload_never_moves_the_confirmed_lsn() -> None:
    acks = Acks(Lsn(START))
    acks.add(START, START + 10)
    # START+10 to START+20 failed: nobody calls add for it
    assert not acks.add(START + 20, START + 30)
    assert acks.confirmed == START + 10
    assert acks.holes_bytes == 10
    assert acks.add(START + 10, START + 20)
    assert acks.confirmed == START + 30
    assert acks.holes_bytes == 0


@given(st.lists(ranges, max_size=40))
def test_confirmed_is_the_end_of_what_is_durable_without_a_hole(added: list[tuple[int, int]]) -> None:
    acks = Acks(Lsn(START))
    for index, (start, end) in enumerate(added):
        before = acks.confirmed
        moved = acks.add(start, end)
        assert acks.confirmed == _model(added[: index + 1])
        assert moved == (acks.confirmed > before)
        assert acks.confirmed >= before


@given(st.permutations(range(20)))
def test_order_of_arrival_does_not_matter(order: list[int]) -> None:
    acks = Acks(Lsn(START))
    for position in order:
        acks.add(START + position * 5, START + position * 5 + 5)
    assert acks.confirmed == START + 100
    assert acks.holes_bytes == 0


@given(st.lists(ranges, max_size=20))
def test_nothing_is_reported_before_this_session_stored_a_byte(added: list[tuple[int, int]]) -> None:
    acks = Acks(Lsn(START))
    assert acks.reportable == 0
    for start, end in added:
        acks.add(start, end)
        assert acks.reportable == (acks.confirmed if acks.confirmed > START else 0)


@pytest.mark.parametrize(("start", "end"), [(5, 5), (6, 5)])
def test_a_range_that_is_none_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="not a range"):
        Acks(Lsn(0)).add(start, end)


def test_repeated_and_overlapping_ranges_count_once() -> None:
    acks = Acks(Lsn(START))
    assert acks.add(START - 50, START + 5)
    assert not acks.add(START, START + 5)
    assert acks.add(START + 3, START + 8)
    assert not acks.add(START - 100, START - 50)
    assert acks.confirmed == START + 8
    assert acks.holes_bytes == 0
