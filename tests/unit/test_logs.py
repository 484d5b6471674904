"""Log lines: one per event, fields with their names, no secrets, no floods."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from pgbackup import logs
from pgbackup.log_repeats import Repeats
from pgbackup.logs import JsonFormatter, Redactor, TextFormatter, log_fields

SECRET = 'it\'s "s3cret"/ü'


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    level, words = root.level, set(logs.redact._words)
    yield
    for handler in [h for h in root.handlers if isinstance(h, logs.StderrHandler)]:
        root.removeHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(False)
    logs.redact._words = words
    logs.redact.add(())


def record(message: str, *args: object, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("pgbackup.wal", level, __file__, 1, message, args, None)
    made.__dict__.update(log_fields(**extra))
    made.created = 1772330400.25
    return made


def test_a_text_line_has_time_level_thread_and_fields() -> None:
    line = TextFormatter().format(
        record("segment is durable", segment="000000010000000000000001", seconds=0.2, lsn=None)
    )
    assert line == (
        "2026-03-01T02:00:00.250Z INFO MainThread: segment is durable (segment=000000010000000000000001, seconds=0.2)"
    )


def test_an_event_is_one_line() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError as exc:
        made = record("it\r\nbroke \x1b[31m%s", "badly\u2028")
        made.exc_info = (type(exc), exc, exc.__traceback__)
    for formatter in (TextFormatter(), JsonFormatter()):
        assert len(formatter.format(made).splitlines()) == 1
    assert "\x1b" not in TextFormatter().format(made)
    assert "ValueError: first" in TextFormatter().format(made)
    assert "ValueError: first" in json.loads(JsonFormatter().format(made))["exception"]


def test_a_json_line_has_fields_beside_the_message() -> None:
    event = json.loads(JsonFormatter().format(record("part %d", 3, backup="base_1", attempt=2, level_of_detail=None)))
    assert event == {
        "time": "2026-03-01T02:00:00.250Z", "level": "info", "logger": "pgbackup.wal", "thread": "MainThread",
        "message": "part 3", "backup": "base_1", "attempt": 2,
    }  # fmt: skip


def test_a_secret_is_replaced_in_every_form() -> None:
    redact = Redactor()
    redact.add([SECRET, "abc", ""])
    forms = [
        SECRET,
        repr(SECRET),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        "it%27s%20%22s3cret%22%2F%C3%BC",
    ]
    for form in forms:
        assert "s3cret" not in redact(f"before {form} after"), form
        assert "before" in redact(f"before {form} after")
    assert redact("abc") == "abc", "too short to hide"


def test_no_secret_gets_out_by_an_exception() -> None:
    stream = io.StringIO()
    for log_format in ("text", "json"):
        logs.configure(level="debug", log_format=log_format, secrets=[SECRET], stream=stream)
        try:
            raise ValueError(f"cannot connect with password={SECRET}")
        except ValueError:
            logging.getLogger("pgbackup.test").exception("failed with %s", SECRET, extra=log_fields(object=SECRET))
    assert "cannot connect with" in stream.getvalue()
    assert "s3cret" not in stream.getvalue()


def test_the_handler_writes_late_counts_before_the_event_that_woke_it() -> None:
    stream, now = io.StringIO(), [0.0]
    handler = logs.StderrHandler(Repeats(interval=60, clock=lambda: now[0]), stream)
    handler.setFormatter(TextFormatter())
    for _ in range(3):
        handler.emit(record("store is down", level=logging.WARNING))
    now[0] = 61
    handler.emit(record("store is back"))
    messages = [line.split(": ", 1)[1] for line in stream.getvalue().splitlines()]
    assert messages == ["store is down", "store is down (repeated 2 times in 61 s)", "store is back"]


def test_a_closed_stderr_is_no_reason_to_fail() -> None:
    stream = io.StringIO()
    stream.close()
    handler = logs.StderrHandler(Repeats(), stream)
    handler.emit(record("nobody reads this"))


def test_configuring_again_replaces_the_handler(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.configure(level="warning", log_format="json")
    logging.getLogger("pgbackup.test").info("not shown")
    logging.getLogger("pgbackup.test").warning("shown")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["shown"]
