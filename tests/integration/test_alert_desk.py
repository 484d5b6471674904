"""Where findings become what people hear, over restarts: nothing is told twice as new, nothing that opened or ended is
lost because the one that should have told it has ended."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.alerts.base import Origin
from pgbackup.alerts.channels import AlertSettings
from pgbackup.core.findings import Finding, Severity
from pgbackup.core.health_facts import Health
from pgbackup.errors import CorruptObject, StoreUnavailable
from pgbackup.repository import keys
from pgbackup.storage.memory import MemoryStore
from pgbackup.supervisor.alert_desk import AlertDesk, DeskSettings
from pgbackup.supervisor.status_look import told_by_run, worse_than
from tests.fix_receiver import Receiver
from tests.made_health import green
from tests.waiting import wait_for

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOLE = Finding("wal:hole:1/0", Severity.CRITICAL, "a segment is missing", "Take a base backup.", {"timeline": 1})
OTHER = Finding("backup:overdue", Severity.WARNING, "the newest is old", "Take a base backup.")
STREAM = Finding("stream:stopped", Severity.CRITICAL, "WAL streaming stands", "Look at the log.")
DROPPED = Finding("slot:dropped", Severity.CRITICAL, "the slot was dropped to save the server", "Mend the store.")


def later(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def verdict(*findings: Finding) -> Health:
    return Health("critical" if findings else "ok", findings)


@contextmanager
def desk(receiver: Receiver, store: MemoryStore, *, grace: float = 0.0, finish: float = 2.0) -> Iterator[AlertDesk]:
    """One process' desk, from its start to its end."""
    settings = AlertSettings(Origin("main", "db-1", "s3://b/main", "1"), webhook_urls=[f"{receiver.url}/hook"])
    made = AlertDesk(DeskSettings(settings, {}, grace))
    made.keep_book_in(store)
    made.start()
    yield made
    made.finish(finish)


def told(receiver: Receiver) -> list[tuple[str, str]]:
    found = [json.loads(request.body) for request in receiver.requests]
    return [(each["kind"], each["key"]) for each in found]


def test_a_restart_in_the_middle_of_an_alert_tells_nothing_twice(receiver: Receiver) -> None:
    store = MemoryStore()
    with desk(receiver, store) as first:
        first.round(verdict(HOLE), NOON)
        receiver.wait(1)
        first.round(verdict(HOLE), later(1))
    with desk(receiver, store) as second:
        for minute in range(2, 10):
            second.round(verdict(HOLE), later(minute))
        second.round(verdict(), later(10))
        second.round(verdict(), later(13))
    assert told(receiver) == [("opened", HOLE.key), ("resolved", HOLE.key)]


def test_what_is_told_late_after_a_start_keeps_what_was_open_before(receiver: Receiver) -> None:
    """New findings right after the start may be nothing; those that were open are no news, and not over."""
    store = MemoryStore()
    with desk(receiver, store) as first:
        first.round(verdict(HOLE), NOON)
        receiver.wait(1)
        first.round(verdict(HOLE), later(1))
    with desk(receiver, store, grace=3600) as second:
        for minute in range(2, 20):
            second.round(verdict(HOLE, OTHER), later(minute))
    assert told(receiver) == [("opened", HOLE.key)]


def test_an_opening_that_nobody_got_is_told_by_the_next_process(receiver: Receiver) -> None:
    store = MemoryStore()
    receiver.default = (503, {}, 0.0)
    with desk(receiver, store) as first:
        first.round(verdict(HOLE), NOON)
        receiver.wait(1)
    receiver.requests.clear()
    receiver.default = (200, {}, 0.0)
    with desk(receiver, store) as second:
        second.round(verdict(HOLE), later(1))
        receiver.wait(1)
    assert told(receiver) == [("repeated", HOLE.key)]


def test_an_opening_that_was_under_way_at_a_crash_is_told_by_the_next_process(receiver: Receiver) -> None:
    store = MemoryStore()
    receiver.default = (503, {}, 0.0)
    with desk(receiver, store) as first:
        first.round(verdict(HOLE), NOON)
        receiver.wait(1)
        stored = store.get(keys.ALERTS)  # of a process that was killed here
    store.put(keys.ALERTS, stored)
    receiver.requests.clear()
    receiver.default = (200, {}, 0.0)
    with desk(receiver, store) as second:
        second.round(verdict(HOLE), later(1))
        receiver.wait(1)
    assert told(receiver) == [("repeated", HOLE.key)]


def test_an_end_that_nobody_got_is_told_by_the_next_process(receiver: Receiver) -> None:
    store = MemoryStore()
    with desk(receiver, store) as first:
        first.round(verdict(HOLE), NOON)
        receiver.wait(1)
        receiver.default = (503, {}, 0.0)
        first.round(verdict(), later(1))
        first.round(verdict(), later(4))
        receiver.wait(2)
    receiver.requests.clear()
    receiver.default = (200, {}, 0.0)
    with desk(receiver, store) as second:
        second.round(verdict(), later(5))
        second.round(verdict(), later(8))
        receiver.wait(1)
    assert told(receiver) == [("resolved", HOLE.key)]


def test_a_book_that_could_not_be_stored_is_stored_later(receiver: Receiver) -> None:
    store = MemoryStore()
    with desk(receiver, store) as first:
        store.fail_next("put", StoreUnavailable("gone"))
        first.round(verdict(HOLE), NOON)
        receiver.wait(1)
        first.round(verdict(HOLE), later(1))
    with desk(receiver, store) as second:
        second.round(verdict(HOLE), later(2))
    assert told(receiver) == [("opened", HOLE.key)]


def test_while_nothing_is_told_nothing_is_stored(receiver: Receiver) -> None:
    store = MemoryStore()
    with desk(receiver, store) as first:
        first.round(verdict(HOLE), NOON)
        receiver.wait(1)
        wait_for(lambda: not first._dispatch.undelivered())
        first.round(verdict(HOLE), later(1))
        store.calls.clear()
        for minute in range(2, 30):
            moving = Finding(HOLE.key, HOLE.severity, f"{minute} s are missing", HOLE.hint, {"seconds": minute})
            first.round(verdict(moving), later(minute))
        assert "put" not in store.calls


def test_something_can_be_told_while_no_verdict_comes(receiver: Receiver) -> None:
    store = MemoryStore()
    stale = Finding("health:stale", Severity.CRITICAL, "no health check ends", "Restart pgbackup.")
    with desk(receiver, store) as only:
        only.round(verdict(HOLE), NOON)
        for minute in range(5, 30, 5):
            only.alarm([stale], later(minute))
        receiver.wait(2)
        only.round(verdict(HOLE), later(31))
        only.round(verdict(HOLE), later(34))
    assert told(receiver) == [("opened", HOLE.key), ("opened", "health:stale"), ("resolved", "health:stale")]


def test_people_are_told_before_a_store_is_waited_for_that_does_not_answer(receiver: Receiver) -> None:
    """Each request takes a minute to fail then: what was open before can be asked for when it answers again."""
    store = MemoryStore()
    unseen = Finding("repository:unreachable", Severity.CRITICAL, "no answer", "Look at the network.")
    with desk(receiver, store) as first:
        first.round(verdict(HOLE), NOON)
        receiver.wait(1)
        first.round(verdict(HOLE), later(1))
    with desk(receiver, store) as second:
        store.calls.clear()
        second.round(replace(verdict(unseen), facts=green(repository=None)), later(2))
        receiver.wait(2)
        assert not store.calls
        second.round(replace(verdict(HOLE), facts=green()), later(3))
    assert told(receiver) == [("opened", HOLE.key), ("opened", unseen.key)]


def test_what_is_told_at_once_waits_for_a_start_to_be_over(receiver: Receiver) -> None:
    store = MemoryStore()
    with desk(receiver, store, grace=3600) as only:
        only.alarm([STREAM, DROPPED], NOON)
    assert told(receiver) == [("opened", DROPPED.key)]


def test_status_repeats_only_what_the_process_still_sees(receiver: Receiver) -> None:
    """An alert stays open for two minutes after its cause: a verdict of now does not wait for that."""
    store = MemoryStore()
    with desk(receiver, store) as first:
        first.round(verdict(STREAM), NOON)
        assert [alert.finding.key for alert in told_by_run(store)] == [STREAM.key]
        first.round(verdict(), later(0.5))
        assert told_by_run(store) == []
        first.round(verdict(STREAM), later(1))
        assert [alert.finding.key for alert in told_by_run(store)] == [STREAM.key]
        first.round(verdict(), later(2))
    with desk(receiver, store) as second:
        second.round(verdict(), later(4.5))
        receiver.wait(2)
    assert told(receiver) == [("opened", STREAM.key), ("resolved", STREAM.key)]


def test_status_believes_what_only_several_looks_show(receiver: Receiver) -> None:
    """One look sees neither that an object was another one before, nor how fast the slot grows."""
    store = MemoryStore()
    replaced = Finding("repository:replaced", Severity.CRITICAL, "it was replaced", "Find out who did it.")
    grows = Finding("slot:retention", Severity.CRITICAL, "the disk is full in 41 min", "Is the store reachable?")
    with desk(receiver, store) as only:
        only.round(verdict(replaced, grows, OTHER), NOON)
        receiver.wait(3)
    said = told_by_run(store)
    assert [alert.finding.key for alert in said] == [replaced.key, grows.key]
    own = [replaced, replace(grows, severity=Severity.WARNING)]
    assert [alert.finding for alert in worse_than(said, own)] == [grows], "what both see is told once"


@contextmanager
def beating(receiver: Receiver, *, grace: float = 0.0) -> Iterator[AlertDesk]:
    """A desk that has nothing but a heartbeat; its start has arrived."""
    settings = AlertSettings(Origin("main", "db-1", "s3://b/main", "1"), heartbeat_url=f"{receiver.url}/beat")
    made = AlertDesk(DeskSettings(settings, {}, grace))
    made.start()
    receiver.wait(1)
    yield made
    made.finish(2)


def test_a_heartbeat_that_failed_beats_again_by_itself(receiver: Receiver) -> None:
    """That it fails is a warning, and on a warning nothing is sent: it must not fall silent for its own sake."""
    receiver.default = (503, {}, 0.0)
    with beating(receiver) as only:
        for minute in range(5):
            count = len(receiver.requests)
            only.round(Health("warning" if only.findings() else "ok", tuple(only.findings())), later(minute))
            receiver.wait(count + 1)
            wait_for(lambda minute=minute: only._heartbeat._failures >= minute + 2)
        assert [f.key for f in only.findings()] == ["alert-channel:heartbeat 127.0.0.1"]
        receiver.default = (200, {}, 0.0)
        only.round(Health("warning", tuple(only.findings())), later(6))
        wait_for(lambda: not only.findings())
        count = len(receiver.requests)
        only.round(Health("warning", (OTHER,)), later(7))
    assert len(receiver.requests) == count, "another warning is a reason not to beat"


def test_right_after_the_start_the_heartbeat_does_not_cry(receiver: Receiver) -> None:
    with beating(receiver, grace=3600) as only:
        only.round(verdict(HOLE), NOON)
        time.sleep(0.3)
        only.round(verdict(), later(1))
        receiver.wait(2)
    assert [request.path for request in receiver.requests] == ["/beat/start", "/beat"]


def test_a_book_that_cannot_be_read_says_nothing_good() -> None:
    store = MemoryStore()
    store.put(keys.ALERTS, b"{")
    with pytest.raises(CorruptObject):
        told_by_run(store)
