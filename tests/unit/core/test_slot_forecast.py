"""The slot's growth is told in time: warned, alarmed, and dropped only where the operator said so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pgbackup.core.findings import Severity
from pgbackup.core.slot_forecast import SlotForecast, SlotSample, SlotSeries, should_drop, slot_findings
from tests.made_catalog import minutes

GIB = 1 << 30


def sample(minute: float = 0, retained: int = 0, **more) -> SlotSample:
    return SlotSample(minutes(minute), True, active=True, wal_status="reserved", retained_bytes=retained, **more)


def told(one: SlotSample, forecast: SlotForecast | None = None, limit: int | None = None) -> list[tuple[str, Severity]]:
    found = slot_findings(one, forecast or SlotForecast(0.0, None, None), limit)
    return [(finding.key, finding.severity) for finding in found]


def test_a_slot_that_keeps_up_is_nothing() -> None:
    assert told(sample(retained=20 << 20, free_bytes=GIB, limit_bytes=100 << 20)) == []


def test_the_disk_is_full_in_41_minutes() -> None:
    series = SlotSeries()
    for minute in range(10):
        forecast = series.add(sample(minute, retained=minute * GIB, free_bytes=50 * GIB - minute * GIB))
    assert forecast.until_full is not None
    assert forecast.until_full == pytest.approx(timedelta(minutes=41), rel=0.01)
    (finding,) = slot_findings(sample(9, retained=9 * GIB, free_bytes=41 * GIB), forecast, None)
    assert "the disk is full in 41 min at this rate" in finding.summary
    assert finding.severity is Severity.CRITICAL


def test_shipping_sets_the_rate_back() -> None:
    series = SlotSeries()
    for minute, retained in enumerate((9, 10, 1, 1, 1)):
        forecast = series.add(sample(minute, retained=retained * GIB, free_bytes=GIB))
    assert (forecast.rate, forecast.until_full) == (0.0, None)


@pytest.mark.parametrize(("share", "severity"), [(0.4, None), (0.6, Severity.WARNING), (0.9, Severity.CRITICAL)])
def test_the_limit_of_the_server_and_our_own(share: float, severity: Severity | None) -> None:
    expected = [("slot:retention", severity)] if severity else []
    assert told(sample(retained=round(share * 8 * GIB), limit_bytes=8 * GIB)) == expected
    assert told(sample(retained=round(share * 8 * GIB)), limit=8 * GIB) == expected


@pytest.mark.parametrize(("status", "key"), [("unreserved", "slot:unreserved"), ("lost", "slot:lost")])
def test_the_server_s_own_word(status: str, key: str) -> None:
    assert told(replace(sample(), wal_status=status)) == [(key, Severity.CRITICAL)]


def test_no_slot() -> None:
    assert told(SlotSample(minutes(0), False)) == [("slot:missing", Severity.CRITICAL)]


def test_it_is_dropped_only_beyond_the_operator_s_limit() -> None:
    assert not should_drop(sample(retained=100 * GIB), None)
    assert not should_drop(sample(retained=GIB), GIB)
    assert should_drop(sample(retained=GIB + 1), GIB)
    assert not should_drop(SlotSample(minutes(0), False), 1)


def test_a_slot_that_is_being_emptied_is_not_dropped() -> None:
    """Nor one that was made just now: what it keeps is on the disk anyway, and is being shipped."""
    full, less = sample(retained=3 * GIB), replace(sample(retained=2 * GIB), active=True)
    assert not should_drop(less, GIB, full)
    assert should_drop(less, GIB, less)
    assert should_drop(replace(less, active=False), GIB, full)
    assert not should_drop(less, GIB, SlotSample(minutes(0), False))


def test_the_limit_that_is_near_is_named() -> None:
    (finding,) = slot_findings(sample(retained=60 << 20, free_bytes=70 * GIB), SlotForecast(0, None, None), 64 << 20)
    held = "the slot holds back 60.0 MiB of WAL on the server"
    assert finding.summary == f"{held}, is dropped at 64.0 MiB, 70.0 GiB are free"
    (finding,) = slot_findings(sample(retained=60 << 20, limit_bytes=64 << 20), SlotForecast(0, None, None), None)
    assert finding.summary == f"{held}, is lost at 64.0 MiB"


def test_the_series_is_bounded() -> None:
    series = SlotSeries()
    for second in range(5000):
        series.add(sample(second / 60, retained=second))
    assert len(series._growth._samples) <= 901


@pytest.mark.parametrize(("share", "severity"), [(0.4, None), (0.6, Severity.WARNING), (0.9, Severity.CRITICAL)])
def test_a_small_limit_is_told_before_it_is_reached(share: float, severity: Severity | None) -> None:
    """Nothing below 256 MiB was told, so a slot with a limit of 200 MiB was dropped, or lost, without a word before."""
    retained = round(share * (200 << 20))
    expected = [("slot:retention", severity)] if severity else []
    assert told(sample(retained=retained), limit=200 << 20) == expected
    assert told(sample(retained=retained, limit_bytes=200 << 20)) == expected


def test_what_is_always_in_flight_is_not_told_for_the_smallest_limit() -> None:
    assert told(sample(retained=31 << 20, limit_bytes=32 << 20)) == []
