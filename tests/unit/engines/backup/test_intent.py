"""The note of a base backup under way says whether it gets on: one that does is waited for, one that hangs is told."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.core.health_facts import BackupUnderWay
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.engines.backup import intent
from pgbackup.engines.backup.intent import Intent, OwnIntent, StoredIntent, read_intent
from pgbackup.engines.presence.owner import Owner
from pgbackup.repository import keys
from pgbackup.storage.memory import MemoryStore
from tests.waiting import wait_for

START = Lsn(0x2000028)
NAME = keys.backup_name(1, START, 16 << 20)
KEY = keys.intent(1, SegmentName.containing(1, START).start)
ELSEWHERE = Owner("elsewhere", "another boot", "another container", 77, 1234, "a")
LOOKED = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_the_heartbeat_says_whether_the_copy_gets_on(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It beats as long as the process lives; that it hangs shows by what it says of itself."""
    monkeypatch.setattr(intent, "HEARTBEAT_SECONDS", 0.02)
    received = 0
    own = OwnIntent.claim(store, KEY, Intent(NAME, Owner.new("here"), 1, str(START)))
    assert own is not None
    own.progress = lambda: received

    def still() -> timedelta:
        found = read_intent(store, KEY)
        assert found is not None
        return found.under_way(found.modified).still

    try:
        wait_for(lambda: still() > timedelta(seconds=0.3))
        for received in range(1, 40):  # noqa: B007 - the heartbeat asks for it
            time.sleep(0.005)
        assert still() < timedelta(seconds=0.2)
        wait_for(lambda: still() > timedelta(seconds=0.3))
        own.update(seal={})
        assert still() < timedelta(seconds=0.2), "the copy is complete, and the seal waits for WAL"
    finally:
        own.remove()


def test_what_health_is_told_of_a_note() -> None:
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    made = Intent(NAME, ELSEWHERE, 1, str(START), advanced=begun, beat=begun + timedelta(minutes=30))
    found = StoredIntent(KEY, made, "etag", LOOKED)
    expected = BackupUnderWay(NAME, timedelta(minutes=4), timedelta(minutes=34))
    assert found.under_way(LOOKED + timedelta(minutes=4)) == expected
    older = StoredIntent(KEY, replace(made, advanced=None), "etag", LOOKED)
    assert older.under_way(LOOKED) == BackupUnderWay(NAME, timedelta(0), timedelta(0)), "an older version says less"
