"""Logging to stderr: one line per event, text or JSON, fields with fixed names, no secrets, no floods.

Code logs with ``getLogger(__name__)``, a constant message, and facts as fields: ``_log.info("segment is durable",
extra=log_fields(segment=name, seconds=0.2))``. Field names: ``lsn``, ``segment``, ``timeline``, ``backup``, ``object``,
``attempt``, ``seconds``.

Secrets are removed from the finished line, so that nothing escapes by way of an exception, a URL or a library. A
warning or an error that repeats within ``REPEAT_SECONDS`` is shown once and counted; ``repeat_key`` makes events with
different texts count as one, and lets INFO be counted too.
"""

from __future__ import annotations

import copy
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO
from urllib.parse import quote

REPEAT_SECONDS = 60.0
LEVELS = ("debug", "info", "warning", "error")
_SHORTEST_SECRET = 4
_MOST_REMEMBERED = 1000
_LINE_ENDS = re.compile(r"[\r\n\u2028\u2029\x85]+\s*")
_RARE_LINE_ENDS = {ord(sign): f"\\u{ord(sign):04x}" for sign in "\u2028\u2029\x85"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def log_fields(*, repeat_key: str = "", **fields: object) -> dict[str, Any]:
    """For ``extra=``. Values are shown by ``str``; None is left out."""
    return {"fields": {name: value for name, value in fields.items() if value is not None}, "repeat_key": repeat_key}


class Redactor:
    """Replaces secrets in text, also as they look in URLs and JSON."""

    def __init__(self) -> None:
        self._pattern: re.Pattern[str] | None = None
        self._words: set[str] = set()

    def add(self, secrets: Iterable[str]) -> None:
        """Hide these from now on. Shorter ones than four characters are not looked for: every line would have them."""
        for text in secrets:
            if len(text) >= _SHORTEST_SECRET:
                self._words |= {text, quote(text, safe=""), quote(text), repr(text)[1:-1]}
                self._words |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
        longest_first = sorted(self._words, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub("********", text) if self._pattern else text


redact = Redactor()
"""The process's own; what is printed outside of logging goes through it as well."""


class TextFormatter(logging.Formatter):
    """``2026-03-01T02:00:00.123Z INFO wal: message (segment=…, seconds=0.2)``."""

    def format(self, record: logging.LogRecord) -> str:
        fields = ", ".join(f"{name}={value}" for name, value in fields_of(record).items())
        text = record.getMessage() + (f" ({fields})" if fields else "")
        if record.exc_info and record.exc_info[0] is not None:
            text += f" | {self.formatException(record.exc_info)}"
        line = f"{_moment(record)} {record.levelname} {record.threadName}: {_one_line(text)}"
        return redact(line)


class JsonFormatter(logging.Formatter):
    """One JSON object a line; fields of an event stand beside time, level, logger, thread and message."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        for name, value in fields_of(record).items():
            event.setdefault(name, value if isinstance(value, bool | float) or type(value) is int else str(value))
        if record.exc_info and record.exc_info[0] is not None:
            event["exception"] = self.formatException(record.exc_info)
        return redact(json.dumps(event, ensure_ascii=False).translate(_RARE_LINE_ENDS))


class Repeats:
    """Lets an event through once per interval and counts the rest; the count is added to the next one shown."""

    def __init__(self, interval: float = REPEAT_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()
        self._shown: dict[tuple[str, str], tuple[float, int, logging.LogRecord]] = {}

    def admit(self, record: logging.LogRecord) -> logging.LogRecord | None:
        """What to write for this event: itself, itself with a count, or nothing."""
        given = str(getattr(record, "repeat_key", ""))
        if record.levelno < logging.WARNING and not given:
            return record
        key = (record.name, f"{record.msg}\0{given}" if given else record.getMessage())
        now = self._clock()
        with self._lock:
            since, repeated, _ = self._shown.get(key, (now - self._interval, 0, record))
            if now - since < self._interval:
                self._shown[key] = (since, repeated + 1, record)
                return None
            self._shown[key] = (now, 0, record)
        return _with_count(record, repeated)

    def ended(self, *, everything: bool = False) -> list[logging.LogRecord]:
        """The last of each suppressed event that did not come again in its interval, with its count."""
        now = self._clock()
        with self._lock:
            everything = everything or len(self._shown) > _MOST_REMEMBERED
            over = [key for key, seen in self._shown.items() if everything or now - seen[0] >= self._interval]
            seen = [self._shown.pop(key) for key in over]
        return [_with_count(record, repeated) for _, repeated, record in seen if repeated]


def _with_count(record: logging.LogRecord, repeated: int) -> logging.LogRecord:
    if not repeated:
        return record
    counted = copy.copy(record)
    counted.msg, counted.args = f"{record.getMessage()} (repeated {repeated} times)", None
    return counted


class StderrHandler(logging.Handler):
    """Writes to whatever ``sys.stderr`` is now, so that a progress bar can stand below the lines."""

    def __init__(self, repeats: Repeats, stream: TextIO | None = None) -> None:
        super().__init__()
        self._repeats = repeats
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        admitted = self._repeats.admit(record)
        for late in self._repeats.ended():
            self._write(late)
        if admitted is not None:
            self._write(admitted)

    def close(self) -> None:
        for late in self._repeats.ended(everything=True):
            self._write(late)
        super().close()

    def _write(self, record: logging.LogRecord) -> None:
        try:
            stream = self._stream or sys.stderr
            stream.write(self.format(record) + "\n")
            stream.flush()
        except (OSError, ValueError):
            return  # nobody reads stderr any more: no reason to stop backing up


def configure(
    *, level: str = "info", log_format: str = "text", secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Set up the root logger; may be called again, for example when the settings are known."""
    redact.add(secrets)
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, StderrHandler)]:
        root.removeHandler(handler)
        handler.close()
    handler = StderrHandler(Repeats(), stream)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """The fields that the event was logged with."""
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, Mapping) else {}


def _moment(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _one_line(text: str) -> str:
    return _CONTROL.sub("?", _LINE_ENDS.sub(" | ", text.strip()))
