"""The record of verifications: what cannot be told is not taken for nothing."""

from __future__ import annotations

import pytest

from pgbackup.errors import CorruptObject
from pgbackup.repository import keys
from pgbackup.repository.verification_note import must_read_verification
from pgbackup.storage.memory import MemoryStore

READABLE = b'{"format": 1, "finished": "2026-03-01T00:00:00+00:00", "ok": true, "damaged": ["base"]}'


@pytest.mark.parametrize(
    ("part", "other"),
    [(READABLE, b""), (b'"2026-03-01T00:00:00+00:00"', b"5"), (b'["base"]', b'"base"'), (b": 1", b": 2")],
    ids=["empty", "no time", "a text for a list", "another format"],
)
def test_what_cannot_be_read_is_no_verdict(part: bytes, other: bytes) -> None:
    store = MemoryStore()
    assert must_read_verification(store) is None
    store.put(keys.VERIFICATION, READABLE)
    run = must_read_verification(store)
    assert run is not None
    assert set(run.damaged) == {"base"}
    assert part in READABLE
    store.put(keys.VERIFICATION, READABLE.replace(part, other))
    with pytest.raises(CorruptObject, match="which backups were found damaged is not known"):
        must_read_verification(store)
