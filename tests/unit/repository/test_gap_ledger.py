"""The ledger: what was recorded is read again, never changed, and a damaged entry does not look like no gap."""

from __future__ import annotations

import re

import pytest

from pgbackup.core.known_gaps import KnownGap
from pgbackup.errors import CorruptObject
from pgbackup.repository import keys
from pgbackup.repository.gap_ledger import acknowledge_gap, read_gaps, record_gap
from pgbackup.storage.memory import MemoryStore
from tests.made_catalog import at, minutes

GAP = KnownGap(1, at(12), at(15), minutes(5), "the slot was dropped")


def test_what_was_recorded_is_read_again() -> None:
    store = MemoryStore()
    assert record_gap(store, GAP)
    assert not record_gap(store, GAP)
    later = KnownGap(1, at(20), at(21), minutes(9), "again")
    record_gap(store, later)
    assert read_gaps(store) == (GAP, later)


def test_an_acknowledgement_stays_with_its_gap() -> None:
    store = MemoryStore()
    record_gap(store, GAP)
    assert acknowledge_gap(store, GAP, moment=minutes(7), by="me", comment="it was the disk")
    assert not acknowledge_gap(store, GAP, moment=minutes(8), by="you", comment="")
    (gap,) = read_gaps(store)
    assert (gap.acknowledged, gap.acknowledged_by, gap.comment) == (minutes(7), "me", "it was the disk")


def test_keys_hold_no_run_that_wal_g_would_delete() -> None:
    assert not re.search(r"[0-9A-Fa-f]{24}", keys.gap(1, at(12), at(15)))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"timeline": 1, "start": "0/5", "end": "0/4", "found": "2026-01-01T00:00:00Z"}']
)
def test_a_damaged_entry_raises(data: bytes) -> None:
    store = MemoryStore()
    store.put(keys.gap(1, 5, 6), data)
    with pytest.raises(CorruptObject):
        read_gaps(store)
