"""Who else writes: a lease that was left behind proves nothing, one that changes while we look does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pgbackup.engines.presence.lease import STALE_SECONDS, Lease
from pgbackup.engines.presence.other_writer import OtherWriter, OtherWriterWatch
from pgbackup.storage.memory import MemoryStore


class LaterStore(MemoryStore):
    """Its clock shows a later time."""

    later = timedelta(0)

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.later


def leases() -> tuple[LaterStore, Lease, Lease]:
    store = LaterStore()
    return store, Lease(store, writer="a", host="here"), Lease(store, writer="b", host="here")


def test_what_the_power_failure_left_is_not_another_writer() -> None:
    store, ours, dead = leases()
    dead.acquire(7, 1)
    watch = OtherWriterWatch(ours)
    assert [watch.look(), watch.look()] == [OtherWriter("b", has_written=False)] * 2
    store.later = timedelta(seconds=STALE_SECONDS)
    assert watch.look() is None


def test_one_that_renews_its_lease_is() -> None:
    _, ours, other = leases()
    other.acquire(7, 1)
    watch = OtherWriterWatch(ours)
    watch.look()
    other.acquire(7, 1)
    assert watch.look() == OtherWriter("b", has_written=True)
    assert watch.look() == OtherWriter("b", has_written=True), "until it is gone"


def test_one_that_comes_while_we_look_is_at_once() -> None:
    _, ours, other = leases()
    watch = OtherWriterWatch(ours)
    assert watch.look() is None
    other.acquire(7, 1)
    assert watch.look() == OtherWriter("b", has_written=True)


def test_one_that_took_ours_over_is_at_once() -> None:
    store, ours, other = leases()
    watch = OtherWriterWatch(ours)
    ours.acquire(7, 1)
    assert watch.look() is None
    store.later = timedelta(seconds=STALE_SECONDS)
    assert other.acquire(7, 1)
    store.later = timedelta(0)
    assert watch.look() == OtherWriter("b", has_written=True)
