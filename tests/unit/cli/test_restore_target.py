"""Whether "10 minutes ago" can be believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.cli.restore_target import check_clock
from pgbackup.errors import RestoreError
from pgbackup.storage.memory import MemoryStore


def store_ahead(minutes: float) -> MemoryStore:
    return MemoryStore(now=lambda: datetime.now(UTC) + timedelta(minutes=minutes))


@pytest.mark.parametrize(("minutes", "side"), [(-90, "1 h 30 min ahead of"), (90, "1 h 30 min behind")])
def test_a_time_ago_is_refused_where_the_clocks_differ(minutes, side):
    with pytest.raises(RestoreError, match=side) as caught:
        check_clock(store_ahead(minutes), "10 minutes ago")
    assert "write the time out" in caught.value.hint


def test_a_time_that_is_written_out_needs_no_clock():
    check_clock(store_ahead(-90), "2026-01-31T14:05:00Z")
    check_clock(store_ahead(-90), "")


def test_clocks_that_agree_about():
    check_clock(store_ahead(0.5), "10 minutes ago")
