"""The record of expiry: what somebody else wrote there."""

from __future__ import annotations

import json

import pytest

from pgbackup.repository import keys
from pgbackup.repository.expiry_record import read_record
from pgbackup.storage.memory import MemoryStore


@pytest.mark.parametrize("strange", [{"9" * 5000: [[1, 2]]}, {"1": [[-5, 3], [5, 1], [1], "ab"]}, {"\u0663": [[1, 2]]}])
def test_what_is_no_range_of_removed_wal_excuses_nothing(strange: dict[str, object]) -> None:
    store = MemoryStore()
    document = {"format": 1, "when": "2026-03-01T00:00:00+00:00", "removed_wal": strange}
    store.put(keys.EXPIRY, json.dumps(document).encode())
    record = read_record(store)
    assert record is not None
    assert record.removed_wal.ranges == {}
