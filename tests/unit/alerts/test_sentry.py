"""What Sentry receives, taken apart byte for byte: events by fingerprint, check-ins that make their monitor."""

from __future__ import annotations

import gzip
import json
import logging
import sys
import threading
from datetime import datetime, timedelta
from typing import Any

import pytest

from pgbackup.alerts.base import DeliveryError
from pgbackup.alerts.monitors import CheckIns, Monitor
from pgbackup.alerts.sentry import SentryChannel
from pgbackup.alerts.sentry_client import SentryClient, check_dsn
from pgbackup.core.alert_book import NoticeKind
from pgbackup.core.findings import Severity
from pgbackup.core.schedule_spec import ScheduleSpec
from tests.fix_receiver import Received, Receiver
from tests.made_notice import ORIGIN, notice
from tests.waiting import wait_for

KEY = "0123456789abcdef0123456789abcdef"


def client(receiver: Receiver) -> SentryClient:
    return SentryClient(receiver.dsn, release="pgbackup@0.1.0", server_name="db-1")


def items(request: Received) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The items of an envelope (https://develop.sentry.dev/sdk/foundations/transport/envelopes/): headers, payloads."""
    body = gzip.decompress(request.body) if request.headers.get("Content-Encoding") == "gzip" else request.body
    header, rest = body.split(b"\n", 1)
    json.loads(header)
    found = []
    while rest.strip():
        line, rest = rest.split(b"\n", 1)
        item = json.loads(line)
        payload, rest = rest[: item["length"]], rest[item["length"] :].lstrip(b"\n")
        found.append((item, json.loads(payload)))
    return found


def test_a_notice_is_an_event_grouped_by_its_key(receiver: Receiver) -> None:
    channel = SentryChannel(client(receiver), ORIGIN)
    channel.send(notice(facts={"backup": "base_1", "lag": 5}))
    (request,) = receiver.requests
    assert request.path == "/api/42/envelope/"
    assert f"sentry_key={KEY}" in request.headers["X-Sentry-Auth"]
    ((header, event),) = items(request)
    assert header["type"] == "event"
    assert (event["fingerprint"], event["level"]) == (["wal:not-durable"], "error")
    assert event["message"] == "WAL of <5> s & more"
    assert event["tags"] == {
        "cluster": "bucket/prefix", "host": "db-1", "key": "wal:not-durable", "severity": "critical",
        "backup": "base_1", "database": "db.example.org:5432/shop",
    }  # fmt: skip
    assert event["contexts"]["finding"]["lag"] == 5
    assert (event["release"], event["server_name"]) == ("pgbackup@0.1.0", "db-1")
    assert not event.get("breadcrumbs", {}).get("values")
    assert "user" not in event
    channel.close()


def test_the_envelope_is_as_its_specification_says(receiver: Receiver) -> None:
    channel = SentryChannel(client(receiver), ORIGIN)
    channel.send(notice(summary="ünïcödé\nin two lines"))
    channel.close()
    (request,) = receiver.requests
    assert request.method == "POST"
    assert request.headers["Content-Type"] == "application/x-sentry-envelope"
    assert request.headers["Content-Encoding"] == "gzip"
    lines = gzip.decompress(request.body).split(b"\n")
    envelope, item, event = (json.loads(line) for line in lines[:3])
    assert envelope["event_id"] == event["event_id"]
    assert datetime.fromisoformat(envelope["sent_at"]).tzinfo is not None
    assert item["type"] == "event"
    assert item["length"] == len(lines[2])
    assert lines[3:] in ([], [b""]), "one item and no more: no session, no client report"
    assert event["message"] == "ünïcödé\nin two lines"
    assert event["platform"] == "python"


def test_levels_and_what_is_over(receiver: Receiver) -> None:
    channel = SentryChannel(client(receiver), ORIGIN)
    channel.send(notice(severity=Severity.WARNING))
    channel.send(notice(kind=NoticeKind.RESOLVED))
    first, second = (items(request)[0][1] for request in receiver.requests)
    assert first["level"] == "warning"
    assert (second["level"], second["fingerprint"]) == ("info", ["wal:not-durable", "resolved"])
    channel.close()


def test_errors_that_are_logged_are_no_events(receiver: Receiver) -> None:
    channel = SentryChannel(client(receiver), ORIGIN)
    logging.getLogger("pgbackup.test").error("this is an error")
    channel.send(notice())
    assert len(receiver.requests) == 1
    channel.close()


@pytest.mark.parametrize(("status", "retryable"), [(503, True), (403, False)])
def test_an_event_that_did_not_arrive_is_a_failure(receiver: Receiver, status: int, *, retryable: bool) -> None:
    receiver.answers.append((status, {}, 0.0))
    channel = SentryChannel(client(receiver), ORIGIN)
    with pytest.raises(DeliveryError, match=f"HTTP {status}") as caught:
        channel.send(notice())
    assert caught.value.retryable is retryable
    channel.send(notice())
    channel.close()


def test_a_dead_endpoint_is_a_failure_that_names_no_key() -> None:
    channel = SentryChannel(SentryClient(f"http://{KEY}@127.0.0.1:1/42", release="r", server_name="s"), ORIGIN)
    with pytest.raises(DeliveryError) as caught:
        channel.send(notice())
    assert caught.value.retryable
    assert KEY not in f"{caught.value}{channel.name}"
    channel.close()


@pytest.mark.parametrize("text", ["nonsense", "http://", "https://host/1", "ftp://a@b/1"])
def test_what_is_no_dsn(text: str) -> None:
    with pytest.raises(ValueError, match="expected https"):
        check_dsn(text)


def test_check_ins_make_their_monitor_and_belong_together(receiver: Receiver) -> None:
    sender = client(receiver)
    check_ins = CheckIns(sender, "bucket/prefix")
    check_ins.start()
    spec = ScheduleSpec.parse("daily at 02:30")
    monitor = Monitor.of_schedule("base-backup", spec, "Europe/Berlin", margin=timedelta(hours=1))
    run = "a" * 32
    check_ins.note(monitor, "in_progress", run_id=run)
    check_ins.note(monitor, "ok", run_id=run, seconds=12.5)
    receiver.wait(2)
    check_ins.finish(5)
    sender.close()
    (first, second) = (items(request)[0] for request in receiver.requests)
    assert first[0]["type"] == "check_in"
    assert [first[1]["status"], second[1]["status"]] == ["in_progress", "ok"]
    assert first[1]["check_in_id"] == second[1]["check_in_id"] == run
    assert second[1]["duration"] == 12.5
    assert first[1]["monitor_slug"].startswith("pgbackup-bucket-prefix-")
    assert first[1]["monitor_config"] == {
        "schedule": {"type": "crontab", "value": "30 2 * * *"}, "timezone": "Europe/Berlin", "checkin_margin": 60,
        "max_runtime": 1440, "failure_issue_threshold": 1, "recovery_threshold": 1,
    }  # fmt: skip


def test_of_signs_of_life_only_the_newest_has_to_arrive(receiver: Receiver) -> None:
    receiver.default = (503, {}, 0.0)
    sender = client(receiver)
    check_ins = CheckIns(sender, "c", first_pause=0.3)
    check_ins.start()
    life, work = (Monitor.of_interval(what, timedelta(minutes=1)) for what in ("wal", "base-backup"))
    check_ins.note(work, "in_progress", run_id="a" * 32)
    receiver.wait(1)
    for number in range(300):
        check_ins.note(life, "ok", seconds=number)
    check_ins.note(work, "ok", run_id="a" * 32)
    wait_for(check_ins.finding)
    receiver.default = (200, {}, 0.0)
    wait_for(lambda: not check_ins.finding())
    check_ins.finish(10)
    sender.close()
    said = [items(request)[0][1] for request in receiver.requests]
    statuses = [(event["status"], event.get("duration")) for event in said]
    assert ("ok", 299.0) in statuses
    assert len([event for event in said if event["check_in_id"] == "a" * 32]) >= 2
    assert len(said) < 12


def test_after_one_check_in_is_given_up_the_next_is_tried_again(receiver: Receiver) -> None:
    sender = client(receiver)
    check_ins = CheckIns(sender, "c", first_pause=0.01)
    receiver.answers = [(503, {}, 0.0)] * 7
    monitor = Monitor.of_interval("wal", timedelta(minutes=1))
    check_ins.note(monitor, "in_progress", run_id="a" * 32)
    check_ins.note(monitor, "ok", run_id="b" * 32)
    check_ins.start()
    receiver.wait(8)
    check_ins.finish(5)
    sender.close()
    assert [items(r)[0][1]["check_in_id"][0] for r in receiver.requests] == ["a"] * 5 + ["b"] * 3


def test_a_retried_event_is_the_same_event(receiver: Receiver) -> None:
    receiver.answers.append((503, {}, 0.0))
    channel = SentryChannel(client(receiver), ORIGIN)
    with pytest.raises(DeliveryError):
        channel.send(notice())
    channel.send(notice())
    first, second = (items(request)[0][1] for request in receiver.requests)
    assert first["event_id"] == second["event_id"]
    channel.close()


def test_a_test_is_no_error(receiver: Receiver) -> None:
    channel = SentryChannel(client(receiver), ORIGIN)
    channel.send(notice(kind=NoticeKind.TEST))
    assert items(receiver.requests[0])[0][1]["level"] == "info"
    channel.close()


def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgbackup.alerts.sentry_client._WAIT_SECONDS", 0.3)
    receiver.answers.append((400, {}, 0.8))
    channel = SentryChannel(client(receiver), ORIGIN)
    with pytest.raises(DeliveryError, match="no answer within"):
        channel.send(notice("first"))
    channel.send(notice("second"))
    assert len(receiver.requests) == 2
    channel.close()


def test_check_ins_arrive_although_the_channel_ended_before(receiver: Receiver) -> None:
    sender = client(receiver)
    channel, check_ins = SentryChannel(sender, ORIGIN), CheckIns(sender, "c")
    channel.close()
    check_ins.note(Monitor.of_interval("wal", timedelta(minutes=1)), "error")
    check_ins.start()
    check_ins.finish(5)
    assert [items(r)[0][1]["status"] for r in receiver.requests] == ["error"]
    with pytest.raises(DeliveryError):
        sender.capture({"message": "late"})


def test_after_the_end_nothing_is_sent(receiver: Receiver) -> None:
    sender = client(receiver)
    sender.close()
    with pytest.raises(DeliveryError):
        sender.capture({"message": "late"})
    check_ins = CheckIns(sender, "c")
    check_ins.finish(1)
    assert receiver.requests == []


def test_the_environment_is_the_operators(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTRY_ENVIRONMENT", "staging")
    sender = client(receiver)
    SentryChannel(sender, ORIGIN).send(notice())
    sender.capture({"type": "check_in", "monitor_slug": "x", "status": "ok", "check_in_id": "a" * 32})
    sender.close()
    assert [items(r)[0][1]["environment"] for r in receiver.requests] == ["staging", "staging"]


def test_nothing_of_the_process_is_hooked(receiver: Receiver) -> None:
    hooks = (sys.excepthook, threading.excepthook, logging.Logger.callHandlers, threading.Thread.start)
    sender = client(receiver)
    assert hooks == (sys.excepthook, threading.excepthook, logging.Logger.callHandlers, threading.Thread.start)
    sender.close()


def test_check_ins_are_tried_again_in_order(receiver: Receiver) -> None:
    receiver.answers.append((503, {}, 0.0))
    sender = client(receiver)
    check_ins = CheckIns(sender, "c", first_pause=0.05)
    check_ins.start()
    monitor = Monitor.of_interval("wal", timedelta(minutes=1))
    for status in ("in_progress", "ok"):
        check_ins.note(monitor, status)
    receiver.wait(3)
    check_ins.finish(5)
    sender.close()
    assert [items(r)[0][1]["status"] for r in receiver.requests] == ["in_progress", "in_progress", "ok"]
