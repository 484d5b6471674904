"""Signals as a process gets them: the first asks for an end, the second does not ask."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

_WAITS = """
import sys
from pgbackup.supervisor.signals import stop_on_signals
stop = stop_on_signals()
print("ready", flush=True)
while not stop.wait(1):
    pass
print("told", flush=True)
{then}
"""

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program that waits for its signal and then does something; it is ready when this returns."""
    started: list[subprocess.Popen[str]] = []

    def run(then: str) -> subprocess.Popen[str]:
        code = _WAITS.format(then=then)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_told_and_the_process_ends_as_it_likes(start: Start, number: signal.Signals) -> None:
    process = start("sys.exit(0)")
    process.send_signal(number)
    assert process.wait(10) == 0


def test_the_second_signal_ends_it_at_once(start: Start) -> None:
    process = start("import time; time.sleep(60)")
    process.send_signal(signal.SIGTERM)
    assert process.stdout
    assert process.stdout.readline() == "told\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 130


def test_a_signal_in_the_middle_of_looking_at_the_event_does_not_deadlock() -> None:
    """The handler runs in the main thread, which may hold the event's lock at that very moment."""
    code = """
import os, signal, time
from pgbackup.supervisor.signals import stop_on_signals
stop = stop_on_signals()
with stop._cond:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
assert stop.wait(5)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
