"""A base backup of another process is waited for while it lives and gets on, and no longer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pgbackup.core.lsn import Lsn
from pgbackup.engines.backup.elsewhere import backup_elsewhere
from pgbackup.engines.backup.intent import Intent
from pgbackup.engines.presence.owner import Owner
from pgbackup.repository import keys
from pgbackup.storage.memory import MemoryStore

NAME = "base_000000010000000000000003"
KEY = keys.intent(1, 0x3000000)
OURS = Owner.new("here")
THEIRS = replace(OURS, host="there", boot="of another machine")


def note(owner: Owner = THEIRS, still: timedelta = timedelta(0)) -> bytes:
    return Intent(NAME, owner, 1, str(Lsn(0x3000028)), advanced=datetime.now(UTC) - still).encode()


def test_one_that_lives_and_gets_on_is_named() -> None:
    store = MemoryStore()
    assert not backup_elsewhere(store, "here")
    store.put(KEY, note())
    assert backup_elsewhere(store, "here").startswith(f"{NAME}, which process ")


def test_one_that_hangs_keeps_nobody() -> None:
    store = MemoryStore()
    store.put(KEY, note(still=timedelta(hours=2)))
    assert not backup_elsewhere(store, "here")


def test_one_whose_process_is_gone_keeps_nobody() -> None:
    store = MemoryStore()
    store.put(KEY, note(replace(OURS, attempt="an earlier one")))
    assert not backup_elsewhere(store, "here")


def test_the_note_of_one_that_is_sealed_keeps_nobody() -> None:
    store = MemoryStore()
    store.put(KEY, note())
    store.put(keys.sentinel(NAME), b"{}")
    assert not backup_elsewhere(store, "here")
