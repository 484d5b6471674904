"""Health from real servers and repositories: green only while everything is there, red at the next look."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgbackup.core.health import evaluate
from pgbackup.core.health_facts import LastRun
from pgbackup.core.retention import RetentionPolicy
from pgbackup.engines.expire.expire import ExpiryRequest, run_expiry
from pgbackup.engines.presence.lease import Lease
from pgbackup.errors import StoreDenied, StoreUnavailable
from pgbackup.postgres.server_look import look
from pgbackup.postgres.session import Session
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.verification_note import write_verification
from pgbackup.storage.memory import MemoryStore
from pgbackup.supervisor.health_look import HealthLook
from pgbackup.supervisor.health_watch import HealthWatch
from tests.base_backups import take
from tests.fix_postgres import ServerFactory
from tests.streaming import ZSTD, flush_lsn
from tests.watched_health import LIMITS, Watched


@pytest.fixture
def watched(server: ThrowawayServer) -> Watched:
    return Watched(server)


def test_every_major_is_looked_at(make_server: ServerFactory, pg_major: int) -> None:
    server = make_server(pg_major)
    with Session.connect(server.conninfo(user="pgbackup"), application_name="look") as session:
        seen = look(session)
    assert (seen.in_recovery, seen.timeline, seen.silent_seconds) == (False, 1, 0.0)
    assert abs(seen.clock - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_standby_is_silent_when_its_primary_is_gone(make_server: ServerFactory) -> None:
    primary = make_server()
    standby = make_server.standby_of(primary)
    with Session.connect(standby.conninfo(user="pgbackup"), application_name="look") as session:
        deadline = time.monotonic() + 20
        while look(session).silent_seconds > 60:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        primary.stop("immediate")
        while look(session).silent_seconds < math.inf:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert look(session).in_recovery


def test_green_while_everything_is_there(watched: Watched) -> None:
    assert watched.health().verdict == "critical"
    with watched.shipping():
        take(watched.server, watched.store)
        watched.server.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")
        deadline = time.monotonic() + 20
        while (health := watched.wait_verdict("ok")).rpo != timedelta(0):
            assert time.monotonic() < deadline, health
            time.sleep(0.1)
    assert health.window is not None
    assert health.window.latest is not None
    assert datetime.now(UTC) - health.window.latest < timedelta(seconds=80), "there is a mark a minute"


def test_wal_that_nobody_ships_grows_old(watched: Watched) -> None:
    with watched.shipping():
        take(watched.server, watched.store)
        watched.wait_verdict("ok")
    watched.server.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")
    health = watched.health()
    assert health.rpo is not None
    assert health.durable is not None
    assert health.durable < flush_lsn(watched.server)
    time.sleep(1.2)
    later = watched.health()
    assert later.rpo is not None
    assert later.rpo >= health.rpo + timedelta(seconds=1)


def test_a_sender_that_hangs_is_not_taken_for_a_server_that_rests(watched: Watched) -> None:
    """Its connection stands, it says nothing, and all that it had said is durable."""
    unused: Any = None
    with watched.shipping() as stream:
        take(watched.server, watched.store)
        watch = HealthWatch(unused, LIMITS, stream.progress, watched.clock, interval_seconds=60)
        while watched.wait_verdict("ok").rpo != timedelta(0):
            watch.sample()
        [(sender,)] = watched.server.execute("SELECT pid FROM pg_stat_replication WHERE state = 'streaming'")
        os.kill(sender, signal.SIGSTOP)
        try:
            watched.server.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")
            for _ in range(4):
                time.sleep(0.5)
                watch.sample()
            rpo = watched.health().rpo
            assert rpo is not None
            assert rpo >= timedelta(seconds=2)
        finally:
            os.kill(sender, signal.SIGCONT)


def test_another_writer_stays_told_while_nothing_moves(watched: Watched) -> None:
    with watched.shipping():
        take(watched.server, watched.store)
        while watched.wait_verdict("ok").rpo != timedelta(0):
            time.sleep(0.1)
    other = Lease(watched.store, writer="elsewhere:1", host="elsewhere")
    ours = watched.store.get(keys.LEASE)
    watched.store.delete([keys.LEASE])
    assert other.acquire(1, 1)
    watched.list_everything()
    for _ in range(3):
        assert "lease:other-writer" in watched.finding_keys()
    watched.store.put(keys.LEASE, ours)
    assert "lease:other-writer" not in watched.finding_keys()


def test_an_emptied_bucket_is_red_at_the_next_look(watched: Watched) -> None:
    with watched.shipping():
        take(watched.server, watched.store)
        watched.wait_verdict("ok")
        for _ in range(4):
            assert watched.health().verdict == "ok"
        watched.store.delete([info.key for info in watched.store.list()])
        assert {"backup:none", "backup:vanished"} <= watched.finding_keys()


def test_what_expiry_removed_has_not_vanished(watched: Watched) -> None:
    with watched.shipping():
        take(watched.server, watched.store)
        take(watched.server, watched.store)
        watched.wait_verdict("ok")
        policy = RetentionPolicy(backups=1, window=timedelta(0))
        request = ExpiryRequest(watched.store, ZSTD, policy, UTC, threading.Event(), lambda: True)
        assert len(run_expiry(request).backups) == 1
        assert watched.health().verdict == "ok"


def test_wal_that_an_expiry_for_once_removed_is_not_missed(watched: Watched) -> None:
    """Behind a permanent backup, which the retention of every day wants as one of its newest."""
    with watched.shipping() as stream:
        take(watched.server, watched.store, permanent=True)
        watched.ship_segments(stream)
        take(watched.server, watched.store)
        watched.wait_verdict("ok")
        policy = RetentionPolicy(backups=1, window=timedelta(0))
        request = ExpiryRequest(watched.store, ZSTD, policy, UTC, threading.Event(), lambda: True)
        report = run_expiry(request)
        assert not report.backups
        assert report.removed.objects
        assert watched.health().verdict == "ok"
        watched.store.delete([keys.EXPIRY])
        watched.list_everything()
        assert [key.rpartition(":")[0] for key in watched.finding_keys()] == ["wal:hole"]


@pytest.mark.not_for_walg("every object is damaged in turn")
def test_every_lost_or_replaced_object_is_told_at_the_next_look(watched: Watched) -> None:
    """One part of either backup, one segment between them, or something else in the place of each."""
    store = watched.store
    with watched.shipping() as stream:
        take(watched.server, store)
        watched.ship_segments(stream)
        take(watched.server, store)
        watched.wait_verdict("ok")
        watched.health()
        older, newer = (backup.name for backup in read_catalog(store, ZSTD).backups)
        between = sorted(i.key for i in store.list(keys.WAL) if i.key < keys.wal(newer[5:], ""))[-1]
        lost = {
            next(i.key for i in store.list(keys.tar_folder(older)) if "/part_" in i.key): "backup:older-not-restorable",
            next(
                i.key for i in store.list(keys.tar_folder(newer)) if "/part_" in i.key
            ): "backup:newest-not-restorable",
            between: "wal:hole:",
        }
        for key, finding in lost.items():
            data = store.get(key)
            store.put(key, bytes(reversed(data)))
            assert "repository:replaced" in watched.finding_keys(), key
            for name in (older, newer):
                watched._look._ports.watch.forget_replaced(name, lambda _: True)
            assert "repository:replaced" not in watched.finding_keys(), key
            store.delete([key])
            assert any(found.startswith(finding) for found in watched.finding_keys()), key
            store.put(key, data)
            watched.health()
            for name in (older, newer):
                watched._look._ports.watch.forget_replaced(name, lambda _: True)
        write_verification(store, LastRun(datetime.now(UTC), ok=False, summary="1 object damaged"))
        assert "verify:failed" in watched.finding_keys(), "not an hour later"


def test_what_is_listed_and_cannot_be_read_is_red(watched: Watched) -> None:
    with watched.shipping():
        take(watched.server, watched.store)
        watched.wait_verdict("ok")
        watched.health()
        watched.store.fail_next("open_read", StoreDenied("the object is in an archive class"), 1)
        assert watched.finding_keys() == {"repository:unreadable"}
        watched.store.fail_next("open_read", StoreDenied("the object is in an archive class"), 1)
        assert watched.finding_keys() == {"repository:unreadable"}, "the same one is tried again"
        assert watched.health().verdict == "ok"


def test_what_cannot_be_seen_is_red(watched: Watched) -> None:
    with watched.shipping():
        take(watched.server, watched.store)
        watched.wait_verdict("ok")
        watched.store.fail_next("list", StoreUnavailable("gone"), 10)
        watched.store.fail_next("list_level", StoreUnavailable("gone"), 10)
        assert watched.finding_keys() == {"repository:unreachable"}
        watched.store._faults.clear()
        assert watched.health().verdict == "ok"
        watched.server.stop("immediate")
        assert watched.finding_keys() == {"server:unreachable"}


def test_a_server_that_was_set_back_is_red(watched: Watched, make_server: ServerFactory) -> None:
    """The same identifier and timeline, an earlier position: a snapshot was restored under us."""
    server = watched.server
    server.stop()
    snapshot = make_server.new_directory("snapshot")
    make_server.account.run(["cp", "-a", f"{server.data_directory}/.", snapshot])
    server.start()
    with watched.shipping() as stream:
        take(server, watched.store)
        server.execute("CREATE TABLE t AS SELECT generate_series(1, 100000)")
        stream.wait_confirmed(flush_lsn(server))
        watched.wait_verdict("ok")
    server.stop()
    watched.server = make_server.over(snapshot)
    assert "wal:server-behind-repository" in watched.finding_keys()


def test_a_backup_under_way_is_seen_only_when_one_is_late(watched: Watched) -> None:
    """A real base backup that is held up at the store, looked at from outside: by its note, not by its process."""
    with watched.shipping():
        take(watched.server, watched.store)
        watched.wait_verdict("ok")
        late = replace(LIMITS, backup_grace=timedelta(hours=-1.5))
        ports = replace(watched.ports, limits=late)
        looking = HealthLook(ports, watched.clock)
        assert "backup:overdue" in {f.key for f in evaluate(looking.look(), late, datetime.now(UTC)).findings}
        watched.server.execute("CREATE TABLE more AS SELECT generate_series(1, 1000)")
        with held_up(watched.store) as at_work:
            thread = threading.Thread(target=take, args=(watched.server, watched.store), daemon=True)
            thread.start()
            assert at_work.wait(20)
            facts = looking.look()
            assert facts.repository is not None
            (work,) = facts.repository.under_way
            assert work.silent < timedelta(minutes=1)
            assert "backup:overdue" not in {f.key for f in evaluate(facts, late, datetime.now(UTC)).findings}
            assert HealthLook(watched.ports, watched.clock).look().repository.under_way == ()  # type: ignore[union-attr]
        thread.join(30)
        facts = looking.look()
        assert facts.repository is not None
        assert facts.repository.under_way == (), "it is sealed"


@contextmanager
def held_up(store: MemoryStore) -> Iterator[threading.Event]:
    """Parts of base backups wait while the block runs; the event is set when one does."""
    at_work, go_on = threading.Event(), threading.Event()
    original = store.start_upload, store.put_if_absent

    def wait(key: str) -> None:
        if "tar_partitions" in key:
            at_work.set()
            go_on.wait(60)

    def start_upload(key: str) -> object:
        wait(key)
        return original[0](key)

    def put_if_absent(key: str, data: bytes) -> bool:
        wait(key)
        return original[1](key, data)

    store.start_upload, store.put_if_absent = start_upload, put_if_absent  # type: ignore[method-assign,assignment]
    try:
        yield at_work
    finally:
        go_on.set()
        store.start_upload, store.put_if_absent = original  # type: ignore[method-assign]
