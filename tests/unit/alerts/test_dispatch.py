"""Delivery: in order, retried, the newest of a key only; a dead channel holds nobody up and is itself a finding."""

from __future__ import annotations

import threading
import time

import pytest

from pgbackup.alerts.base import Answer, DeliveryError
from pgbackup.alerts.dispatch import Dispatch, try_channels
from pgbackup.core.alert_book import Notice, NoticeKind
from tests.made_notice import MadeChannel, notice
from tests.waiting import wait_for


class Hanging(MadeChannel):
    """Hangs in its first delivery until it is let go."""

    def __init__(self) -> None:
        super().__init__("hanging")
        self.let_go = threading.Event()

    def send(self, notice: Notice) -> Answer:
        self.let_go.wait(20)
        return super().send(notice)


def started(*channels: MadeChannel) -> Dispatch:
    dispatch = Dispatch(channels, first_pause=0.01)
    dispatch.start()
    return dispatch


def test_every_channel_gets_every_notice_in_order() -> None:
    channels = [MadeChannel("one"), MadeChannel("two")]
    dispatch = started(*channels)
    dispatch.submit([notice("a"), notice("b")])
    dispatch.submit([notice("c")])
    dispatch.drain(5)
    assert [[n.finding.key for n in channel.sent] for channel in channels] == [["a", "b", "c"]] * 2
    assert all(channel.closed for channel in channels)


def test_a_failed_delivery_is_tried_again() -> None:
    channel = MadeChannel(failures=3)
    dispatch = started(channel)
    dispatch.submit([notice("a"), notice("b")])
    wait_for(lambda: len(channel.sent) == 2)
    assert ([n.finding.key for n in channel.sent], channel.tries) == (["a", "b"], 5)
    dispatch.drain(1)


def test_a_delivery_that_is_refused_holds_nobody_up_and_comes_when_the_receiver_is_mended() -> None:
    """It was lost; and that alerts do not arrive was told until another one did, which may be months."""
    channel = MadeChannel(failures=1, retryable=False)
    dispatch = started(channel)
    dispatch.submit([notice("a")])
    wait_for(dispatch.findings)
    dispatch.submit([notice("b")])
    wait_for(lambda: channel.sent)
    assert ([n.finding.key for n in channel.sent], channel.tries) == (["b"], 2)
    assert list(dispatch.undelivered()) == ["a"]
    dispatch.drain(1)
    assert [n.finding.key for n in channel.sent] == ["b", "a"]


def test_a_hanging_channel_delays_nobody() -> None:
    hanging, fine = Hanging(), MadeChannel("fine")
    dispatch = started(hanging, fine)
    begin = time.monotonic()
    for number in range(2000):
        dispatch.submit([notice(f"key:{number}")])
        if not number % 100:
            wait_for(lambda: len(fine.sent) == number + 1)  # noqa: B023
    assert time.monotonic() - begin < 5
    wait_for(lambda: len(fine.sent) == 2000)
    hanging.let_go.set()
    dispatch.drain(5)
    assert len(hanging.sent) <= 501, "what waits is bounded"


def test_only_the_newest_of_a_key_is_sent_and_what_nobody_heard_of_is_not_resolved() -> None:
    hanging = Hanging()
    dispatch = started(hanging)
    dispatch.submit([notice("first")])
    wait_for(lambda: not dispatch._lines[0]._waiting)
    dispatch.submit([notice("a"), notice("a", NoticeKind.WORSENED), notice("b")])
    dispatch.submit([notice("b", NoticeKind.RESOLVED), notice("a", NoticeKind.RESOLVED)])
    hanging.let_go.set()
    dispatch.drain(5)
    assert [(n.finding.key, str(n.kind)) for n in hanging.sent] == [("first", "opened")]


class Ambiguous(MadeChannel):
    """Takes the first notice, and does not say so: an answer that came too late."""

    def send(self, notice: Notice) -> Answer:
        answer = super().send(notice)
        if len(self.sent) == 1:
            raise DeliveryError("no answer within 10 s", retryable=True)
        return answer


def test_what_somebody_may_have_heard_of_is_resolved() -> None:
    channel = Ambiguous()
    dispatch = Dispatch([channel], first_pause=30)
    dispatch.start()
    dispatch.submit([notice("a")])
    wait_for(lambda: dispatch._lines[0]._failures)
    dispatch.submit([notice("a", NoticeKind.RESOLVED)])
    dispatch.drain(5)
    assert [str(n.kind) for n in channel.sent] == ["opened", "resolved"]


class Choking(MadeChannel):
    """Fails with one key only, always, as a receiver does that cannot digest one body."""

    def send(self, notice: Notice) -> Answer:
        if notice.finding.key == "bad":
            self.tries += 1
            raise DeliveryError("HTTP 500", retryable=True)
        return super().send(notice)


def test_a_notice_that_always_fails_holds_no_other_up() -> None:
    channel = Choking()
    dispatch = started(channel)
    dispatch.submit([notice("bad"), notice("good"), notice("better")])
    wait_for(lambda: len(channel.sent) == 2)
    dispatch.drain(5)


class Buggy(MadeChannel):
    def send(self, notice: Notice) -> Answer:
        raise KeyError("https://hooks.example/T0KEN")


def test_a_bug_in_a_channel_is_a_finding_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    dispatch = started(Buggy())
    dispatch.submit([notice("a")])
    wait_for(dispatch.findings)
    dispatch.drain(5)
    said = dispatch.findings()[0].summary + caplog.text
    assert "KeyError at " in said
    assert "T0KEN" not in said


def test_two_channels_at_one_service_have_names_of_their_own() -> None:
    dead, fine = MadeChannel("webhook slack", failures=10**6), MadeChannel("webhook slack")
    dispatch = started(dead, fine)
    dispatch.submit([notice("a")])
    wait_for(dispatch.findings)
    (finding,) = dispatch.findings()
    assert finding.key == "alert-channel:webhook slack (1)"
    dispatch.submit([notice(finding.key)])
    wait_for(lambda: len(fine.sent) == 2)
    dispatch.drain(0.5)


def test_a_delivery_that_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgbackup.alerts.dispatch._HANGS_SECONDS", 0.05)
    hanging = Hanging()
    dispatch = started(hanging)
    dispatch.submit([notice("a")])
    wait_for(dispatch.findings)
    assert "hangs" in dispatch.findings()[0].summary
    hanging.let_go.set()
    wait_for(lambda: not dispatch.findings())
    dispatch.drain(5)


def test_ending_what_was_never_started_is_no_error() -> None:
    Dispatch([MadeChannel()]).drain(1)


def test_a_dead_channel_is_a_finding_until_it_works() -> None:
    dead, fine = MadeChannel("dead", failures=3), MadeChannel("fine")
    dispatch = started(dead, fine)
    dispatch.submit([notice("a")])
    wait_for(dispatch.findings)
    (finding,) = dispatch.findings()
    assert finding.key == "alert-channel:dead"
    wait_for(lambda: dead.sent)
    wait_for(lambda: not dispatch.findings())
    dispatch.submit([notice("alert-channel:dead")])
    dispatch.drain(5)
    assert [n.finding.key for n in dead.sent] == ["a"], "nobody is told of himself"
    assert [n.finding.key for n in fine.sent] == ["a", "alert-channel:dead"]


def test_the_end_waits_no_longer_than_it_may() -> None:
    dispatch = started(Hanging(), MadeChannel(failures=10**6))
    dispatch.submit([notice("a")])
    begin = time.monotonic()
    dispatch.drain(0.3)
    assert time.monotonic() - begin < 2


def test_a_test_notice_goes_through_every_channel() -> None:
    tried = try_channels([MadeChannel("one"), MadeChannel("two", failures=1)])
    assert [(t.channel, t.ok, t.answer) for t in tried] == [("one", True, "HTTP 200"), ("two", False, "HTTP 503")]


def test_a_test_is_not_stopped_by_a_channel_that_hangs_or_has_a_bug() -> None:
    hanging = Hanging()
    begin = time.monotonic()
    tried = try_channels([hanging, Buggy("bug"), MadeChannel("fine")], seconds=0.5)
    hanging.let_go.set()
    assert [(t.channel, t.ok) for t in tried] == [("hanging", False), ("bug", False), ("fine", True)]
    assert tried[0].answer.startswith("no answer within")
    assert "T0KEN" not in tried[1].answer
    assert time.monotonic() - begin < 3
