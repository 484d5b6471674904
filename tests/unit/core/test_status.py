"""Unknown is never green, and JSON shows it as null."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from pgbackup.core.status import StatusSnapshot, Verdict, is_current, verdict_now
from pgbackup.core.status_json import status_json
from tests.made_status import FULL, HOUR, NOTHING_KNOWN, NOW


@pytest.mark.parametrize(
    ("age_seconds", "current"), [(0, True), (179, True), (181, False), (-60, True), (-3600, False)]
)
def test_a_snapshot_is_current_for_three_intervals(age_seconds: int, current: bool) -> None:
    now = NOW + timedelta(seconds=age_seconds)
    assert is_current(FULL, now) is current
    assert verdict_now(FULL, now) == (Verdict.OK if current else Verdict.UNKNOWN)


def test_without_a_snapshot_nothing_is_known() -> None:
    assert verdict_now(None, NOW) == Verdict.UNKNOWN
    assert verdict_now(NOTHING_KNOWN, NOW) == Verdict.UNKNOWN
    assert status_json(None, NOW) == {"verdict": "unknown", "current": False}


def test_moments_must_have_a_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        StatusSnapshot(as_of=datetime(2026, 3, 1), interval_seconds=60)  # noqa: DTZ001


def test_every_key_is_there_whether_known_or_not() -> None:
    full, empty = status_json(FULL, NOW), status_json(NOTHING_KNOWN, NOW)
    assert full.keys() == empty.keys()
    for name in ("recoverable", "wal", "backups", "slot"):
        assert full[name].keys() == empty[name].keys()  # type: ignore[attr-defined]
        assert set(empty[name].values()) == {None}  # type: ignore[attr-defined]


def test_the_values_in_json() -> None:
    document = json.loads(json.dumps(status_json(FULL, NOW + timedelta(seconds=2))))
    assert document["verdict"] == "ok"
    assert document["age_seconds"] == 2
    assert document["system_identifier"] == "7612345678901234567"
    assert document["recoverable"] == {
        "earliest": "2026-02-19T12:00:00.000Z", "latest": "2026-03-01T11:59:55.000Z", "rpo_seconds": 5.0,
    }  # fmt: skip
    assert document["wal"]["received_lsn"] == "0/5000200"
    assert document["backups"]["last"]["stored_bytes"] == 3_000_000
    assert document["findings"][0]["since"] == "2026-03-01T11:00:00.000Z"
    assert document["alerts_active"] == {"warning": 1}
    assert document["workers"][0] == {
        "name": "wal", "alive": True, "silent": False, "idle_seconds": 0.4, "crashes": 2, "last_error": "KeyError: 'x'",
    }  # fmt: skip


def test_a_stale_snapshot_says_so_in_json() -> None:
    document = status_json(FULL, NOW + HOUR)
    assert (document["verdict"], document["current"]) == ("unknown", False)


def test_a_window_of_one_moment_does_not_end_before_it_begins() -> None:
    """After a first backup: rounded to what can be recovered, nothing of it would be left."""
    moment = NOW + timedelta(microseconds=215599)
    one = replace(FULL, earliest_recoverable=moment, latest_recoverable=moment)
    found = status_json(one, NOW)["recoverable"]
    assert found["earliest"] == found["latest"] == "2026-03-01T12:00:00.215599Z"  # type: ignore[index]
