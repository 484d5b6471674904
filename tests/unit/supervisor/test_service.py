"""Stopping takes as long as it may, and no longer; what must be said at the end is said."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from pgbackup.engines.base import StopSignal
from pgbackup.supervisor.service import Service, StopHook
from pgbackup.supervisor.worker import Worker


def until_stopped(stop: StopSignal) -> None:
    while not stop.wait(0.05):
        pass


def run_and_stop(workers: list[Worker], stop_seconds: float, hooks: list[StopHook]) -> float:
    """Run a service and tell it to stop. Returns the seconds that it took from then."""
    stop, told = threading.Event(), []

    def tell() -> None:
        told.append(time.monotonic())
        stop.set()

    threading.Timer(0.2, tell).start()
    Service(workers, stop, stop_seconds=stop_seconds, on_stopping={hook.__name__: hook for hook in hooks}).run()
    return time.monotonic() - told[0]


def hanging(ended: threading.Event) -> Callable[[StopSignal], None]:
    return lambda stop: (ended.wait(30), None)[1]


@pytest.fixture
def ended() -> threading.Event:
    return threading.Event()


def test_hooks_run_in_order_after_the_workers_with_what_is_left_of_the_time() -> None:
    events: list[str] = []
    left: list[float] = []

    def work(stop: StopSignal) -> None:
        until_stopped(stop)
        events.append("worker")

    def first(seconds: float) -> None:
        events.append("first")
        left.append(seconds)

    assert run_and_stop([Worker("wal", work)], 5, [first, lambda seconds: events.append("second")]) < 2
    assert events == ["worker", "first", "second"]
    assert 4 < left[0] <= 5


def test_a_worker_that_hangs_leaves_time_for_the_hooks(
    caplog: pytest.LogCaptureFixture, ended: threading.Event
) -> None:
    caplog.set_level(logging.INFO)
    called: list[float] = []
    took = run_and_stop([Worker("wal", hanging(ended)), Worker("jobs", until_stopped)], 1, [called.append])
    ended.set()
    assert called
    assert took < 1.5
    assert "stopped without waiting for wal" in caplog.messages


def test_a_hook_that_hangs_or_fails_does_not_keep_the_others(
    caplog: pytest.LogCaptureFixture, ended: threading.Event
) -> None:
    def bad(seconds: float) -> None:
        raise OSError("the test's")

    def slow(seconds: float) -> None:
        ended.wait(30)

    called: list[float] = []
    took = run_and_stop([Worker("wal", until_stopped)], 1, [bad, called.append, slow])
    ended.set()
    assert called
    assert took < 1.5
    assert any("while stopping: bad: the test's" in text for text in caplog.messages)
    assert any(text.startswith("stopped without waiting for") and "slow" in text for text in caplog.messages)


def test_the_service_shows_its_workers(ended: threading.Event) -> None:
    stop = threading.Event()
    service = Service([Worker("wal", until_stopped), Worker("jobs", until_stopped)], stop, stop_seconds=5)
    assert [f.key for f in service.worker_findings()] == ["worker:wal:silent", "worker:jobs:silent"], "not begun yet"
    thread = threading.Thread(target=service.run)
    thread.start()
    deadline = time.monotonic() + 5
    while service.worker_findings():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [state.name for state in service.worker_states()] == ["wal", "jobs"]
    stop.set()
    thread.join(10)


def test_a_hook_that_takes_all_it_is_given_leaves_time_for_the_next() -> None:
    """Alerts wait for a channel that hangs; the lease has to be given back."""
    left: list[float] = []
    run_and_stop([Worker("wal", until_stopped)], 2, [time.sleep, left.append])
    assert left
