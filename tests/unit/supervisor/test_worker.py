"""A worker is restarted, says so, and shows whether it lives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from pgbackup import logs
from pgbackup.core.worker_health import worker_findings
from pgbackup.engines.base import StopSignal
from pgbackup.errors import ConfigError
from pgbackup.supervisor.worker import BeatingStop, Worker


class ImmediateStop(threading.Event):
    """A stop signal whose waits take no time and are remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        return self.is_set()


def run_failing(times: int, make: Callable[[], Exception], seconds_per_run: float = 0) -> tuple[Worker, ImmediateStop]:
    """Run a worker that fails so often and then works until it is stopped."""
    stop, now, runs = ImmediateStop(), [1000.0], [0]

    def work(listening: StopSignal) -> None:
        runs[0] += 1
        now[0] += seconds_per_run
        if runs[0] > times:
            stop.set()
            return
        raise make()

    worker = Worker("wal", work, clock=lambda: now[0])
    worker.start(stop)
    assert worker.join(10)
    return worker, stop


def test_a_crash_restarts_the_work_with_growing_pauses(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    worker, _ = run_failing(4, lambda: KeyError("x"))
    state = worker.state()
    assert (state.crashes, state.crashes_in_a_row, state.last_error) == (4, 4, "KeyError: 'x'")
    said = [record.getMessage() for record in caplog.records if "starting it again in" in record.getMessage()]
    assert [text.split()[-2] for text in said] == ["1", "2", "4", "8"]
    assert "worker wal starts again (crashed 4 times so far)" in caplog.messages
    assert caplog.records[0].exc_info


def test_after_a_good_run_the_pause_is_short_again(caplog: pytest.LogCaptureFixture) -> None:
    worker, _ = run_failing(4, lambda: KeyError("x"), seconds_per_run=1000)
    assert (worker.state().crashes, worker.state().crashes_in_a_row) == (4, 0)
    assert sum("again in 1 s" in text for text in caplog.messages) == 4


def test_an_error_for_the_operator_is_one_line_with_its_hint(caplog: pytest.LogCaptureFixture) -> None:
    run_failing(1, lambda: ConfigError("the key is wrong", hint="Give the right one."))
    record = next(r for r in caplog.records if "the key is wrong" in r.getMessage())
    assert "Give the right one." in record.getMessage()
    assert not record.exc_info


def test_an_end_that_nobody_asked_for_is_a_crash(caplog: pytest.LogCaptureFixture) -> None:
    stop, ends = ImmediateStop(), [0]

    def work(listening: StopSignal) -> None:
        ends[0] += 1
        if ends[0] == 3:
            stop.set()

    worker = Worker("jobs", work)
    worker.start(stop)
    assert worker.join(10)
    assert worker.state().crashes == 2
    assert "although nobody told it to" in worker.state().last_error


def test_no_secret_in_the_last_error(monkeypatch: pytest.MonkeyPatch) -> None:
    words = set(logs.redact._words)
    logs.redact.add(["hunter2hunter2"])
    try:
        worker, _ = run_failing(1, lambda: ValueError("password=hunter2hunter2"))
    finally:
        logs.redact._words = words
        logs.redact.add(())
    assert worker.state().last_error == "ValueError: password=********"


def test_looking_at_the_stop_signal_is_a_heartbeat_of_the_own_thread_only() -> None:
    now = [0.0]
    worker = Worker("wal", lambda stop: None, clock=lambda: now[0], silent_after=60)
    stop = BeatingStop(threading.Event(), worker)
    now[0] = 50
    stop.is_set()
    assert worker.state().idle_seconds == 0
    now[0] = 111
    other = threading.Thread(target=stop.is_set)
    other.start()
    other.join()
    assert worker.state().idle_seconds == 61
    stop.wait(0)
    assert worker.state().idle_seconds == 0


def test_a_hanging_worker_is_silent_and_a_waiting_one_is_not() -> None:
    stop, now, hang = threading.Event(), [0.0], threading.Event()
    waiting = Worker("jobs", lambda listening: (listening.wait(3600), None)[1], clock=lambda: now[0])
    hanging = Worker("wal", lambda listening: (hang.wait(30), None)[1], clock=lambda: now[0])
    for worker in (waiting, hanging):
        worker.start(stop)
    now[0] = 10_000
    waiting.beat()
    try:
        assert not waiting.state().silent
        assert hanging.state().silent
    finally:
        stop.set()
        hang.set()
    assert waiting.join(10)
    assert hanging.join(10)


def test_long_waits_are_cut_into_short_ones() -> None:
    inner = ImmediateStop()
    worker = Worker("wal", lambda stop: None)
    assert BeatingStop(inner, worker).wait(0.01) is False
    assert max(inner.waits) <= 5


def test_a_worker_that_has_ended_is_told_unless_it_was_told_to() -> None:
    """A health check may be under way at a stop: the workers that are through are no alert."""
    stop = threading.Event()
    worker = Worker("jobs", lambda listening: listening.wait(10))
    worker.start(stop)
    stop.set()
    assert worker.join(10)
    assert worker_findings([worker.state()]) == []
    stop.clear()
    assert [finding.key for finding in worker_findings([worker.state()])][-1] == "worker:jobs:silent"
