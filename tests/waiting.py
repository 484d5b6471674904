"""Waiting in tests, with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(reached: Callable[[], object], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not reached():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.005)
