"""The lease: who may take it, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.engines.presence.lease import STALE_SECONDS, Lease
from pgbackup.errors import StoreUnavailable
from pgbackup.repository import keys
from pgbackup.storage.memory import MemoryStore


def test_what_was_given_back_is_free_for_others_and_gone_for_us() -> None:
    store = MemoryStore()
    ours, theirs = Lease(store, writer="a", host="here"), Lease(store, writer="b", host="elsewhere")
    assert ours.acquire(7, 1)
    assert not theirs.acquire(7, 1)
    ours.release()
    assert not ours.acquire(7, 1), "a heartbeat that comes after the end took the lease again"
    assert theirs.acquire(7, 1)


def test_only_the_holder_gives_it_back() -> None:
    store = MemoryStore()
    ours, theirs = Lease(store, writer="a", host="here"), Lease(store, writer="b", host="elsewhere")
    assert ours.acquire(7, 1)
    theirs.release()
    stored = ours.read()
    assert stored is not None
    assert ours.is_ours(stored[0])
    assert not stored[0].released


def test_in_a_full_store_the_lease_stays_whose_it_is() -> None:
    """It takes no heartbeat; and expiry, which makes room, asks for the lease."""
    store = MemoryStore()
    ours, theirs = Lease(store, writer="a", host="here"), Lease(store, writer="b", host="elsewhere")
    assert ours.acquire(7, 1)
    store.fail_next("replace", StoreUnavailable("it is full"))
    assert ours.acquire(7, 1)
    ours.release()
    store.fail_next("replace", StoreUnavailable("it is full"))
    with pytest.raises(StoreUnavailable):
        theirs.acquire(7, 1)


def test_a_damaged_lease_is_taken_over_when_nobody_mends_it() -> None:
    """Shipping WAL asks for the lease at its begin, whether it gets it or not: damage must not stop it."""
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    store = MemoryStore(now=lambda: moment)
    ours = Lease(store, writer="a", host="here")
    store.put(keys.LEASE, b"")
    assert not ours.acquire(7, 1)
    moment += timedelta(seconds=STALE_SECONDS)
    assert ours.acquire(7, 1)
    stored = ours.read()
    assert stored is not None
    assert ours.is_ours(stored[0])
