"""Signals as a process gets them: the first asks for an end, the second does not ask."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
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


_BUSY = """
import signal, threading, time
from pgbackup.supervisor.signals import stop_on_signals
stop = stop_on_signals()
def tell():
    time.sleep(0.5)
    print("ready", flush=True)
    stop.wait()
    print("told", flush=True)
threading.Thread(target=tell, daemon=True).start()
# The kernel gives the signal to another thread then, and the main one goes on waiting in its library.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
lock = threading.Lock()
lock.acquire()
lock.acquire(timeout=60)
"""


def test_a_signal_is_told_although_the_main_thread_runs_no_python() -> None:
    """It waits for a server's answer, or CPython has forgotten that a handler is to be called."""
    process = subprocess.Popen([sys.executable, "-c", _BUSY], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "told\n"
        assert time.monotonic() - began < 20
    finally:
        process.kill()
        process.communicate()
