"""LSNs and segment names, for every segment size that Postgres allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.lsn import (
    MIB,
    Lsn,
    SegmentName,
    check_segment_bytes,
    is_segment_name,
    segments_covering,
)

SIZES = [MIB << shift for shift in range(11)]
lsns = st.integers(min_value=0, max_value=(1 << 64) - 1)
sizes = st.sampled_from(SIZES)
timelines = st.integers(min_value=1, max_value=(1 << 32) - 1)


@st.composite
def segments(draw: st.DrawFn) -> SegmentName:
    size = draw(sizes)
    return SegmentName(draw(timelines), draw(st.integers(min_value=0, max_value=((1 << 64) // size) - 2)), size)


@given(lsns)
def test_lsn_round_trip(value: int) -> None:
    lsn = Lsn(value)
    assert Lsn.parse(str(lsn)) == value
    assert Lsn.parse(str(lsn).lower()) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0/0", 0),
        ("0/1", 1),
        ("16/B374D848", 0x16B374D848),
        ("FFFFFFFF/FFFFFFFF", (1 << 64) - 1),
        ("00000001/00000000", 1 << 32),
        (" 0/3000028\n", 0x3000028),
    ],
)
def test_lsn_parse(text: str, value: int) -> None:
    assert Lsn.parse(text) == value


@pytest.mark.parametrize(
    "text", ["", "/", "0", "0/", "/0", "0x1/0", "1/2/3", "-1/0", "123456789/0", "0/123456789", "g/0"]
)
def test_lsn_parse_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="not an LSN"):
        Lsn.parse(text)


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_lsn_range(value: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        Lsn(value)


@pytest.mark.parametrize(
    ("spec", "text"), [("", "1/A"), (">6", "   1/A"), ("<6s", "1/A   "), ("X", "10000000A"), ("d", "4294967306")]
)
def test_lsn_format(spec: str, text: str) -> None:
    assert format(Lsn((1 << 32) + 10), spec) == text
    assert repr(Lsn((1 << 32) + 10)) == "1/A"


@given(segments())
def test_segment_name_round_trip(segment: SegmentName) -> None:
    name = str(segment)
    assert len(name) == 24
    assert is_segment_name(name)
    assert SegmentName.parse(name, segment.segment_bytes) == segment


@given(timelines, lsns, sizes)
def test_segment_contains_its_bytes(timeline: int, lsn: int, size: int) -> None:
    segment = SegmentName.containing(timeline, lsn, size)
    assert segment.start <= lsn < segment.start + size
    assert segment.start % size == 0


@given(segments())
def test_names_sort_as_their_positions(segment: SegmentName) -> None:
    following = segment.next()
    if following.number < (1 << 64) // segment.segment_bytes:
        assert str(segment) < str(following)
        assert segment.end == following.start


@pytest.mark.parametrize(
    ("name", "size", "number"),
    [
        ("000000010000000000000001", 16 * MIB, 1),
        ("0000000100000000000000FF", 16 * MIB, 255),
        ("000000010000000100000000", 16 * MIB, 256),
        ("000000010000000000000FFF", MIB, 4095),
        ("000000010000000100000000", MIB, 4096),
        ("000000010000000000000003", 1024 * MIB, 3),
        ("000000010000000100000000", 1024 * MIB, 4),
        ("0000000A0000001600000B37", MIB, 0x16 * 4096 + 0xB37),
    ],
)
def test_segment_number(name: str, size: int, number: int) -> None:
    segment = SegmentName.parse(name, size)
    assert segment.number == number
    assert segment.timeline == int(name[:8], 16)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("", 16 * MIB),
        ("00000001000000000000000", 16 * MIB),
        ("0000000100000000000000000", 16 * MIB),
        ("00000001000000000000000g", 16 * MIB),
        ("0000000a0000000000000001", 16 * MIB),
        ("000000010000000000000001\n", 16 * MIB),
        ("00000002.history", 16 * MIB),
        ("000000010000000000000100", 16 * MIB),
        ("000000010000000000000040", 64 * MIB),
        ("000000010000000000000004", 1024 * MIB),
        ("000000010000000000001000", MIB),
        ("00000001FFFFFFFF000000FF", 16 * MIB),
        ("00000001FFFFFFFF00000003", 1024 * MIB),
        ("00000001FFFFFFFF00000FFF", MIB),
    ],
)
def test_segment_parse_refuses(name: str, size: int) -> None:
    with pytest.raises(ValueError, match="segment"):
        SegmentName.parse(name, size)


@pytest.mark.parametrize("size", SIZES)
def test_segment_sizes_of_postgres(size: int) -> None:
    assert check_segment_bytes(size) == size


@pytest.mark.parametrize("size", [0, -MIB, MIB - 1, MIB // 2, 3 * MIB, 2048 * MIB, 16_000_000])
def test_other_segment_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="wal_segment_size"):
        check_segment_bytes(size)


@given(
    timelines,
    sizes,
    st.integers(min_value=0, max_value=1 << 40),
    st.integers(min_value=0, max_value=1 << 23),
)
def test_covering_segments_hold_every_byte(timeline: int, size: int, start: int, length: int) -> None:
    covering = segments_covering(timeline, start, start + length, size)
    if not length:
        assert covering == []
        return
    assert covering[0].start <= start
    assert start + length <= covering[-1].end
    assert covering[-1].start < start + length, "a stop on a boundary needs segments to the byte before it only"
    assert [s.number for s in covering] == list(range(covering[0].number, covering[-1].number + 1))


def test_covering_stops_before_a_boundary() -> None:
    size = 16 * MIB
    assert [s.number for s in segments_covering(1, size, 2 * size, size)] == [1]
    assert [s.number for s in segments_covering(1, size, 2 * size + 1, size)] == [1, 2]
    assert segments_covering(1, 2 * size, size, size) == []
