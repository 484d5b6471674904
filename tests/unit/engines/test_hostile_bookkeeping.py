"""Whoever can write to the bucket can write our bookkeeping: nothing in there may end a process."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from pgbackup.core.health_facts import LastRun
from pgbackup.engines.backup.intent import Intent
from pgbackup.engines.presence.lease import Lease
from pgbackup.engines.presence.owner import Owner
from pgbackup.engines.restore.facts import Bookkeeping, read_bookkeeping
from pgbackup.errors import CorruptObject
from pgbackup.repository import keys
from pgbackup.repository.verification_note import read_verification, write_verification
from pgbackup.storage.memory import MemoryStore

INFINITE = '{"pid": 1e400, "started": 1e400, "timeline": 1e400, "finished": "0001-01-01T00:00:00+14:00"}'
HOSTILE = (
    b"",
    b"\xff",
    b"[]",
    b"[" * 200_000,
    b'{"a":' * 100_000,
    b'{"timeline":' + b"9" * 5000 + b"}",
    INFINITE.encode(),
)


def intent(change: dict[str, object]) -> bytes:
    fields = json.loads(Intent("base_000000010000000000000002", Owner.new("here"), 1, "0/2000028").encode())
    return json.dumps(fields | change).encode()


def last_run(store: MemoryStore) -> None:
    assert read_verification(store) is None


def lease(store: MemoryStore) -> None:
    with pytest.raises(CorruptObject):
        Lease(store, writer="a", host="here").read()
    assert not Lease(store, writer="a", host="here").acquire(7, 1)


def bookkeeping(store: MemoryStore) -> None:
    assert read_bookkeeping(store) == Bookkeeping()


@pytest.mark.parametrize("data", HOSTILE, ids=lambda data: data[:8])
@pytest.mark.parametrize(
    ("key", "look"), [(keys.VERIFICATION, last_run), (keys.LEASE, lease), (keys.LEASE, bookkeeping)]
)
def test_documents_that_nobody_writes(data: bytes, key: str, look: Callable[[MemoryStore], None]) -> None:
    store = MemoryStore()
    store.put(key, data)
    look(store)


@pytest.mark.parametrize(
    "change", [{"began": 5}, {"began": "2026-03-01"}, {"whole": ["base_1"]}, {"whole": {"base_1": 7}}]
)
def test_a_verification_that_nobody_records(change: dict[str, object]) -> None:
    store = MemoryStore()
    write_verification(store, LastRun(datetime.now(UTC), ok=True))
    fields = json.loads(store.get(keys.VERIFICATION))
    store.put(keys.VERIFICATION, json.dumps(fields | change).encode())
    assert read_verification(store) is None


@pytest.mark.parametrize(
    "data",
    [*HOSTILE, intent({"timeline": float("inf")}), intent({"timeline": "9" * 5000}), intent({"owner": {"pid": []}}),
     intent({"uploads": [[1]]}), intent({"backup": 7}), intent({"advanced": 5})],
    ids=lambda data: data[:8],
)  # fmt: skip
def test_an_intent_that_nobody_writes(data: bytes) -> None:
    with pytest.raises(CorruptObject):
        Intent.decode("pgbackup_005/intents/x", data)
