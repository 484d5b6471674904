"""How far WAL was confirmed is never taken back by a note that comes late: a restore relies on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.core.confirmed_note import ConfirmedNote
from pgbackup.core.durable_moment import WalMoment
from pgbackup.core.lsn import Lsn
from pgbackup.engines.restore.facts import read_bookkeeping
from pgbackup.engines.wal.bookkeeping import WalBookkeeping
from pgbackup.repository import keys
from pgbackup.repository.confirmed_notes import read_note, write_note
from pgbackup.storage.memory import MemoryStore

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
STORED = ConfirmedNote(2, Lsn(1000), NOON)
LATER = NOON + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("note", "leads", "holds"),
    [
        (replace(STORED, confirmed=Lsn(1001)), False, True),
        (STORED, True, False),
        (replace(STORED, confirmed=Lsn(999), written=LATER), True, False),
        (ConfirmedNote(3, Lsn(10), NOON - timedelta(days=1)), False, True),
        (ConfirmedNote(1, Lsn(5000), LATER), False, False),
        (ConfirmedNote(1, Lsn(5000), LATER), True, True),
        (ConfirmedNote(1, Lsn(5000), NOON), True, False),
        (ConfirmedNote(1, Lsn(5000)), True, False),
    ],
)
def test_which_of_two_notes_holds(note: ConfirmedNote, leads: bool, holds: bool) -> None:
    assert note.holds_against(STORED, leads=leads) is holds
    assert note.holds_against(None, leads=False)


def write(store: MemoryStore, note: ConfirmedNote, *, leads: bool = False) -> bool:
    return write_note(store, note, writer="test", server_time=None, leads=lambda: leads)


def test_notes_are_stored_and_read() -> None:
    store = MemoryStore()
    assert read_note(store) is None
    assert write(store, STORED)
    assert read_note(store) == STORED
    assert not write(store, replace(STORED, confirmed=Lsn(10)))
    assert write(store, ConfirmedNote(1, Lsn(9), LATER), leads=True)
    assert read_note(store) == ConfirmedNote(1, Lsn(9), LATER)
    assert json.loads(store.get(keys.STATUS))["writer"] == "test"


@pytest.mark.parametrize("damaged", [b"", b"[]", b'{"timeline": 2}', b'{"timeline": 2, "confirmed": "x"}'])
def test_a_damaged_note_is_replaced(damaged: bytes) -> None:
    store = MemoryStore()
    store.put(keys.STATUS, damaged)
    assert read_note(store) is None
    assert write(store, STORED)
    assert read_note(store) == STORED


class Meanwhile(MemoryStore):
    """Between a read of the note and what is stored then, another writer stores its own."""

    def __init__(self, other: ConfirmedNote) -> None:
        super().__init__()
        self.other: ConfirmedNote | None = other

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        if (other := self.other) is not None:
            self.other = None
            assert write(self, other)
        return super().replace(key, data, etag)


@pytest.mark.parametrize("other", [2000, 1500])
def test_two_that_write_at_once(other: int) -> None:
    """The request of an old session is under way while the new one stores its note."""
    store = Meanwhile(replace(STORED, confirmed=Lsn(other)))
    store.put(keys.STATUS, b"damaged")
    assert write(store, replace(STORED, confirmed=Lsn(1600))) is (other < 1600)
    note = read_note(store)
    assert note is not None
    assert note.confirmed == max(other, 1600)


def test_a_note_that_an_old_session_left_to_be_written_comes_too_late() -> None:
    """What was handed over before the session ended runs when the store answers again; meanwhile the next session has
    confirmed more. The restore must go on asking for that."""
    store = MemoryStore()
    old, new = (WalBookkeeping(store, writer="one and the same") for _ in range(2))
    late: list[Callable[[], None]] = []

    def at_once(work: Callable[[], None]) -> Future[None]:
        done: Future[None] = Future()
        work()
        done.set_result(None)
        return done

    def later(work: Callable[[], None]) -> Future[None]:
        late.append(work)
        return Future()

    old.note(later, 1, Lsn(0x5000100), WalMoment(10, Lsn(0x5000100)))
    new.note(at_once, 1, Lsn(0x6000200), WalMoment(20, Lsn(0x6000200)))
    (work,) = late
    work()
    assert read_bookkeeping(store).last_confirmed == (1, Lsn(0x6000200))
    assert len(list(store.list(keys.MARKS))) == 2, "what it proves of the time holds all the same"
