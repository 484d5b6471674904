"""Waiting in tests, with a bound."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def wait_for(reached: Callable[[], object], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not reached():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.005)


def stands_still_at(count: Callable[[], int], pause: float) -> int:
    """What ``count`` is once it has begun and not changed for ``pause`` seconds."""
    before = -1
    while before != count() or not before:
        before = count()
        time.sleep(pause)
    return before


def no_thread_named(prefix: str) -> bool:
    return not any(thread.name.startswith(prefix) for thread in threading.enumerate())
