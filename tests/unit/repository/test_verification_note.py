"""The record of verifications: what cannot be told is not taken for nothing."""

from __future__ import annotations

import pytest

from pgbackup.errors import CorruptObject
from pgbackup.repository import keys
from pgbackup.repository.verification_note import found_damaged
from pgbackup.storage.memory import MemoryStore

READABLE = b'{"format": 1, "finished": "2026-03-01T00:00:00+00:00", "ok": true, "damaged": ["base"]}'


@pytest.mark.parametrize(
    ("part", "other"),
    [(READABLE, b""), (b'"2026-03-01T00:00:00+00:00"', b"5"), (b'["base"]', b'"base"'), (b": 1", b": 2")],
    ids=["empty", "no time", "a text for a list", "another format"],
)
def test_what_cannot_be_read_is_no_verdict(part: bytes, other: bytes) -> None:
    store = MemoryStore()
    assert found_damaged(store) == frozenset()
    store.put(keys.VERIFICATION, READABLE)
    assert found_damaged(store) == {"base"}
    assert part in READABLE
    store.put(keys.VERIFICATION, READABLE.replace(part, other))
    with pytest.raises(CorruptObject, match="which backups were found damaged is not known"):
        found_damaged(store)
