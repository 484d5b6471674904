"""Durations, sizes, rates and percentages, as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.config import values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("0", 0), ("0.2s", 0.2), ("200ms", 0.2), ("5 min", 300), ("1h", 3600), ("7d", 604800),
     ("2 weeks", 1209600), (" 1 H ", 3600), (".5s", 0.5), ("0s", 0)],
)  # fmt: skip
def test_durations(text, seconds):
    assert values.parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["10", "", "s", "-1s", "1 fortnight", "1h30m", "1e3s", "nan s", "99999999999d", "1 s s"]
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="duration"):
        values.parse_duration(text)


@given(st.integers(0, 10**7))
def test_a_formatted_duration_is_read_back(seconds):
    value = timedelta(seconds=seconds)
    assert values.parse_duration(values.format_duration(value)) == value


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256MiB", 256 << 20),
        ("1GB", 10**9),
        ("1.5 KiB", 1536),
        ("0", 0),
        ("512 b", 512),
        ("2tib", 2 << 40),
        ("7 bytes", 7),
    ],
)
def test_sizes(text, size):
    assert values.parse_size(text) == size


@pytest.mark.parametrize("text", ["256", "MiB", "-1MB", "1 MX", "1,5GB", "", "9" * 400 + "MB"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="size"):
        values.parse_size(text)


@given(st.integers(0, 1 << 50))
def test_a_formatted_size_is_read_back(size):
    assert values.parse_size(values.format_size(size)) == size


@pytest.mark.parametrize(("text", "rate"), [("50MB/s", 50 * 10**6), ("10 MiB", 10 << 20), ("1GiB/sec", 1 << 30)])
def test_rates(text, rate):
    assert values.parse_rate(text) == rate


@pytest.mark.parametrize("text", ["0", "0MB/s", "fast", "50"])
def test_what_is_no_rate(text):
    with pytest.raises(ValueError, match="rate"):
        values.parse_rate(text)


def test_percentages():
    assert values.parse_percent("85%") == values.parse_percent(" 85 ") == 85.0
    for text in ("101%", "-1", "most", "nan"):
        with pytest.raises(ValueError, match="percentage"):
            values.parse_percent(text)


def test_switches():
    assert [values.parse_bool(word) for word in ("yes", "TRUE", "on", "1")] == [True] * 4
    assert [values.parse_bool(word) for word in ("no", "False", "off", "0")] == [False] * 4
    with pytest.raises(ValueError, match="yes or no"):
        values.parse_bool("maybe")
