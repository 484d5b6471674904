"""What a verification ends and what it does not: only what it has read after that was noticed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.core.findings import Severity
from pgbackup.core.health_facts import LastRun
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.verification_note import write_verification
from tests.base_backups import take
from tests.streaming import ZSTD
from tests.watched_health import Watched


@pytest.fixture
def watched(server: ThrowawayServer) -> Watched:
    return Watched(server)


def record(watched: Watched, run: LastRun) -> None:
    """A verification ends in the same process."""
    write_verification(watched.store, run)
    watched._look.read_again()


def test_a_backup_that_vanished_whole_is_told_until_what_is_left_was_verified(watched: Watched) -> None:
    """Nothing that is left is damaged, and WAL goes on: only that it was there before shows what is lost."""
    store = watched.store
    with watched.shipping():
        take(watched.server, store)
        take(watched.server, store)
        watched.wait_verdict("ok")
        older, newer = (backup.name for backup in read_catalog(store, ZSTD).backups)
        kept = {i.key: store.get(i.key) for i in store.list(keys.BASEBACKUPS) if older in i.key}
        store.delete(list(kept))
        for _ in range(2):
            (finding,) = watched.health().findings
            assert (finding.key, finding.severity) == ("backup:vanished", Severity.WARNING)
            assert older in finding.summary
        for key, data in kept.items():
            store.put(key, data)
        watched.health()
        assert "backup:vanished" not in watched.finding_keys(), "it is back"
        store.delete(list(kept))
        assert "backup:vanished" in watched.finding_keys()
        now = datetime.now(UTC)
        record(watched, LastRun(now, ok=True, summary=f"{newer} is whole", began=now - timedelta(hours=1)))
        assert "backup:vanished" in watched.finding_keys(), "it had begun before"
        record(watched, LastRun(now, ok=True, summary=f"{newer} is whole", began=now))
        assert "backup:vanished" not in watched.finding_keys()


@pytest.mark.not_for_walg("a segment is replaced by something else")
def test_a_replacement_is_told_until_it_was_read_after_the_last_one(watched: Watched) -> None:
    """A verification reads for hours, and what it has read already may be replaced behind it."""
    store = watched.store
    with watched.shipping() as stream:
        take(watched.server, store)
        watched.ship_segments(stream)
        watched.wait_verdict("ok")
        watched.health()
        (backup,) = read_catalog(store, ZSTD).backups
        first, second = [i.key for i in store.list(keys.WAL) if i.key > keys.wal(backup.name[5:], "zst")][:2]
        store.put(first, bytes(reversed(store.get(first))))
        assert "repository:replaced" in watched.finding_keys()
        began = datetime.now(UTC)
        store.put(second, bytes(reversed(store.get(second))))
        assert "repository:replaced" in watched.finding_keys()
        record(watched, LastRun(datetime.now(UTC), ok=True, began=began, whole={backup.name: began}))
        assert "repository:replaced" in watched.finding_keys(), "the second had been read before"
        record(watched, LastRun(datetime.now(UTC), ok=True, began=datetime.now(UTC)))
        assert "repository:replaced" in watched.finding_keys(), "another backup was read"
        now = datetime.now(UTC)
        record(watched, LastRun(now, ok=True, began=now, whole={backup.name: now}))
        assert "repository:replaced" not in watched.finding_keys()


def test_a_verdict_stands_though_its_record_is_lost(watched: Watched) -> None:
    with watched.shipping():
        take(watched.server, watched.store)
        watched.wait_verdict("ok")
        record(watched, LastRun(datetime.now(UTC), ok=False, summary="1 object damaged"))
        assert "verify:failed" in watched.finding_keys()
        watched.store.delete([keys.VERIFICATION])
        watched._look.read_again()
        assert "verify:failed" in watched.finding_keys()
        watched.store.put(keys.VERIFICATION, b"{}")
        watched._look.read_again()
        assert "verify:failed" in watched.finding_keys()
        record(watched, LastRun(datetime.now(UTC), ok=True))
        assert "verify:failed" not in watched.finding_keys()


def test_a_record_that_cannot_be_read_is_told_until_it_can(watched: Watched) -> None:
    """Whoever looks for the first time cannot know what it said: the newest backup may be the one that was damaged."""
    with watched.shipping():
        take(watched.server, watched.store)
        watched.wait_verdict("ok")
        whole = LastRun(datetime.now(UTC), ok=True)
        write_verification(watched.store, whole)
        readable = watched.store.get(keys.VERIFICATION)
        of_later = json.dumps(json.loads(readable) | {"format": 2, "finished": 1800000000}).encode()
        for unreadable in (b"", readable[:-5], of_later):
            watched.store.put(keys.VERIFICATION, unreadable)
            watched._look.read_again()
            (finding,) = watched.health().findings
            assert (finding.key, finding.severity) == ("verify:unreadable", Severity.CRITICAL)
            assert keys.VERIFICATION in finding.summary
            assert "verify --record" in finding.hint
            # Somebody verifies elsewhere: nobody tells this process to read it again.
            write_verification(watched.store, whole)
            assert watched.health().findings == ()
        watched.store.put(keys.VERIFICATION, b"")
        watched._look.read_again()
        assert "verify:unreadable" in watched.finding_keys()
        watched.store.delete([keys.VERIFICATION])
        assert watched.health().findings == (), "nothing is written that could not be read"


def test_what_a_verification_found_is_judged_at_the_next_look(watched: Watched) -> None:
    with watched.shipping():
        take(watched.server, watched.store)
        watched.wait_verdict("ok")
        found = LastRun(datetime.now(UTC), ok=False, summary="1 object damaged")
        write_verification(watched.store, found)
        watched._look.read_again()
        assert "verify:failed" in watched.finding_keys()
