"""Delivery: in order, retried, the newest of a key only; a dead channel holds nobody up and is itself a finding."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pgbackup.alerts.base import Answer
from pgbackup.alerts.dispatch import Dispatch, try_channels
from pgbackup.core.alert_book import Notice, NoticeKind
from tests.made_notice import MadeChannel, notice


def wait_for(reached: Callable[[], object], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)


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


def test_a_delivery_that_is_refused_for_good_is_not_tried_again() -> None:
    channel = MadeChannel(failures=1, retryable=False)
    dispatch = started(channel)
    dispatch.submit([notice("a"), notice("b")])
    wait_for(lambda: channel.sent)
    assert ([n.finding.key for n in channel.sent], channel.tries) == (["b"], 2)
    dispatch.drain(1)


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
    assert [(n.finding.key, str(n.kind)) for n in hanging.sent] == [("first", "opened"), ("a", "resolved")]


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
