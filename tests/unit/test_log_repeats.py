"""Floods in the log: shown once, counted, bounded; what is critical is always shown."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any

import pytest

from pgbackup import logs
from pgbackup.log_repeats import BURST, INFO_BURST, Repeats
from pgbackup.logs import JsonFormatter, StderrHandler, TextFormatter, log_fields

WARNING = logging.WARNING


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repeats(clock: Clock) -> Repeats:
    return Repeats(interval=60, clock=clock)


def record(message: str, *args: object, level: int = WARNING, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("pgbackup.wal", level, __file__, 1, message, args, None)
    made.__dict__.update(log_fields(**extra))
    return made


def shown(repeats: Repeats, *records: logging.LogRecord) -> list[str]:
    return [admitted.getMessage() for each in records if (admitted := repeats.admit(each)) is not None]


def test_repeats_are_counted_and_the_count_is_shown(repeats: Repeats, clock: Clock) -> None:
    assert shown(repeats, *[record("store is down")] * 413) == ["store is down"]
    assert shown(repeats, record("something else")) == ["something else"]
    assert repeats.ended() == []
    clock.now = 300
    assert shown(repeats, record("store is down")) == ["store is down (repeated 412 times in 5 min)"]


def test_what_did_not_come_again_is_still_counted(repeats: Repeats, clock: Clock) -> None:
    for number in range(3):
        repeats.admit(record("part %d failed", number, level=logging.ERROR, repeat_key="parts"))
    clock.now = 61
    assert [late.getMessage() for late in repeats.ended()] == ["part 2 failed (repeated 2 times in 61 s)"]
    assert repeats.ended() == []


def test_texts_that_differ_in_a_number_only_are_a_flood_too(repeats: Repeats, clock: Clock) -> None:
    first = shown(repeats, *[record("try %d failed", number) for number in range(500)])
    assert first == [f"try {number} failed" for number in range(BURST)]
    clock.now = 61
    assert shown(repeats, record("try %d failed", 500)) == [f"try 500 failed (repeated {500 - BURST} times in 61 s)"]


def test_levels_and_exceptions_are_told_apart(repeats: Repeats) -> None:
    def failing(error: Exception) -> logging.LogRecord:
        made = record("a job failed", level=logging.ERROR)
        made.exc_info = (type(error), error, None)
        return made

    events = [failing(ValueError()), failing(OSError()), record("a job failed"), failing(OSError())]
    assert len(shown(repeats, *events)) == 3


def test_critical_is_never_suppressed_and_debug_was_asked_for(repeats: Repeats) -> None:
    for level in (logging.CRITICAL, logging.DEBUG):
        assert len(shown(repeats, *[record("again", level=level)] * 100)) == 100


def test_information_has_a_larger_burst_unless_it_asks_to_be_counted(repeats: Repeats) -> None:
    assert len(shown(repeats, *[record("segment is durable", level=logging.INFO)] * 100)) == INFO_BURST
    assert len(shown(repeats, *[record("waiting", level=logging.INFO, repeat_key="x")] * 3)) == 1
    assert len(shown(repeats, record("waiting", level=logging.INFO, repeat_key="y"))) == 1


def test_memory_is_bounded(repeats: Repeats) -> None:
    for number in range(5000):
        repeats.admit(record(f"message {number}"))
        repeats.admit(record(f"message {number}"))
        repeats.ended()
    assert len(repeats._shown) <= 1001


def test_no_frame_is_kept_alive_by_a_suppressed_exception(repeats: Repeats) -> None:
    for _ in range(2):
        try:
            raise ValueError("the test's")
        except ValueError:
            made = record("failed")
            made.exc_info = sys.exc_info()
            repeats.admit(made)
    kept = [seen.last for seen in repeats._shown.values() if seen.last is not None]
    assert len(kept) == 1
    assert kept[0].exc_info is None


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
def test_late_counts_are_written_without_another_event(formatter: logging.Formatter, clock: Clock) -> None:
    stream = io.StringIO()
    handler = StderrHandler(Repeats(interval=60, clock=clock), stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        for _ in range(3):
            handler.handle(record("store is down"))
        clock.now = 61
        logs.write_late_counts()
        logs.write_late_counts()
    finally:
        root.removeHandler(handler)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    text = json.loads(lines[1])["message"] if isinstance(formatter, JsonFormatter) else lines[1]
    assert text.endswith("store is down (repeated 2 times in 61 s)")
