"""The tick goes on whatever the wall clock does: the library counts in naive local time, which jumps twice a year."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from pgbackup.supervisor.ticker import Ticker
from tests.waiting import wait_for


@pytest.fixture
def local_time() -> Iterator[None]:
    """Puts the zone of the process back."""
    before = os.environ.get("TZ")
    yield
    os.environ.pop("TZ", None)
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


def set_zone(name: str) -> None:
    os.environ["TZ"] = name
    time.tzset()


@pytest.mark.usefixtures("local_time")
@pytest.mark.parametrize("zone", ["UTC+11", "UTC-14"])
def test_local_time_that_jumps_does_not_stop_the_tick(zone: str) -> None:
    """From one side of the date line to the other: back by a day, or ahead by one."""
    ticks: list[float] = []
    set_zone("UTC-14" if zone == "UTC+11" else "UTC+11")
    ticker, stop = Ticker(), threading.Event()
    ticker.every(1, lambda: ticks.append(time.monotonic()))
    thread = threading.Thread(target=ticker.run, args=(stop,), daemon=True)
    thread.start()
    try:
        wait_for(lambda: len(ticks) >= 2)
        set_zone(zone)
        seen = len(ticks)
        wait_for(lambda: len(ticks) >= seen + 3)
        assert len(ticks) < seen + 6, "and does not storm"
    finally:
        stop.set()
        thread.join(5)


def test_a_job_that_fails_does_not_end_the_others() -> None:
    ticks: list[float] = []
    ticker, stop = Ticker(), threading.Event()
    ticker.every(1, lambda: 1 / 0)
    ticker.every(1, lambda: ticks.append(time.monotonic()))
    thread = threading.Thread(target=ticker.run, args=(stop,), daemon=True)
    thread.start()
    try:
        wait_for(lambda: len(ticks) >= 2)
    finally:
        stop.set()
        thread.join(5)
