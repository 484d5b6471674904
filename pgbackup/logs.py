"""Logging to stderr: one line per event, text or JSON, fields with fixed names, no secrets, no floods.

Code logs with ``getLogger(__name__)``, a constant message, and facts as fields: ``_log.info("segment is durable",
extra=log_fields(segment=name, seconds=0.2))``. Field names: ``lsn``, ``segment``, ``timeline``, ``backup``, ``object``,
``attempt``, ``seconds``.

Secrets are removed from the finished line, so that nothing escapes by way of an exception, a URL or a library.
Floods are counted instead of shown (log_repeats.py); ``repeat_key`` makes events with different texts count as one, and
lets INFO be counted too.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any, TextIO
from urllib.parse import quote

from pgbackup.log_repeats import Repeats
from pgbackup.printable import printable, printable_json

LEVELS = ("debug", "info", "warning", "error")
_SHORTEST_SECRET = 4
_LINE_ENDS = re.compile(r"[\r\n\u2028\u2029\x85]+\s*")


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
        return f"{_moment(record)} {record.levelname} {record.threadName}: {_one_line(redact(text))}"


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
        return printable_json(redact(json.dumps(event, ensure_ascii=False)))


class StderrHandler(logging.Handler):
    """Writes to whatever ``sys.stderr`` is now, so that a progress bar can stand below the lines."""

    def __init__(self, repeats: Repeats, stream: TextIO | None = None) -> None:
        super().__init__()
        self._repeats = repeats
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        admitted = self._repeats.admit(record)
        self.write_late()
        if admitted is not None:
            self._write(admitted)

    def write_late(self) -> None:
        """Write the counts of what was repeated and has not come again."""
        for late in self._repeats.ended():
            self._write(late)

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


def write_late_counts() -> None:
    """Call it now and then: a flood that is over gets its count although nothing else is logged."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, StderrHandler):
            with handler.lock or nullcontext():
                handler.write_late()


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """The fields that the event was logged with."""
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, Mapping) else {}


def _moment(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _one_line(text: str) -> str:
    return printable(_LINE_ENDS.sub(" | ", text.strip()))
