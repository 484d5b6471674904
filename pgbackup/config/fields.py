"""The types of settings: from the text that people write to a checked value, and what the documentation says of each.

Every value arrives as text (or as TOML's numbers and booleans, which are turned into text first), so that one
environment variable, one line of TOML and one flag mean the same. Each check raises ValueError with a message that
says what would be right; the value itself is added where the problem is reported, and never for a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, SecretStr

from pgbackup.config import dsn, values
from pgbackup.config.listen import parse_listen
from pgbackup.config.repository_url import RepositoryUrl
from pgbackup.core.schedule_spec import ScheduleSpec

_SLOT = re.compile(r"^[a-z0-9_]{1,63}$")
_APPLICATION_NAME = re.compile(r"^[ -~]{1,63}$")
_ROLE = re.compile(r"^[^\x00-\x1f]{1,63}$")
_NUMBER = re.compile(r"[0-9]{1,18}")
_ZSTD = re.compile(r"^zstd(?::([1-9]|1[0-9]))?$")


def setting(default: object, help_text: str, *, shown_default: str = "") -> Any:
    """A field of the settings. ``default`` may be a function that makes it; ``shown_default`` is for people."""
    if callable(default):
        return Field(default_factory=default, description=help_text, json_schema_extra={"shown_default": shown_default})
    return Field(default=default, description=help_text, json_schema_extra={"shown_default": shown_default})


def secret(help_text: str) -> Any:
    """A secret, None unless given; the same name with ``_file`` after it reads it from a file."""
    return Field(default=None, description=help_text, json_schema_extra={"secret": True})


def _text(parse: Callable[[str], Any]) -> BeforeValidator:
    """Parse what is text, and take a value of the right kind as it is (defaults, tests)."""
    return BeforeValidator(lambda given: parse(given) if isinstance(given, str) else given)


def choice(*words: str) -> BeforeValidator:
    def parse(text: str) -> str:
        if text.strip().lower() not in words:
            raise ValueError(f"expected {', '.join(words[:-1])} or {words[-1]}")
        return text.strip().lower()

    return _text(parse)


def count(low: int, high: int) -> BeforeValidator:
    def parse(text: str) -> int:
        if not _NUMBER.fullmatch(text.strip()) or not low <= int(text) <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return int(text)

    return _text(parse)


def duration(low: timedelta, high: timedelta, *, zero: bool = False) -> BeforeValidator:
    """From ``low`` to ``high``, and 0 when it means something."""

    def parse(text: str) -> timedelta:
        value = values.parse_duration(text)
        if zero and not value:
            return value
        if not low <= value <= high:
            bounds = f"from {values.format_duration(low)} to {values.format_duration(high)}"
            raise ValueError(f"expected {'0, or ' if zero else ''}a duration {bounds}")
        return value

    return _text(parse)


def size(low: int, high: int) -> BeforeValidator:
    def parse(text: str) -> int:
        value = values.parse_size(text)
        if not low <= value <= high:
            raise ValueError(f"expected a size from {values.format_size(low)} to {values.format_size(high)}")
        return value

    return _text(parse)


def _pattern(pattern: re.Pattern[str], expected: str) -> BeforeValidator:
    def parse(text: str) -> str:
        if not pattern.match(text):
            raise ValueError(expected)
        return text

    return _text(parse)


def _repository(text: str) -> str:
    # Nothing is no mistake yet: some commands need no repository.
    return str(RepositoryUrl.parse(text)) if text else ""


def _schedule(text: str) -> str:
    return str(ScheduleSpec.parse(text))


def _optional_schedule(text: str) -> str:
    return "off" if text.strip().lower() in ("off", "no", "none") else _schedule(text)


def _listen(text: str) -> str:
    found = parse_listen(text)
    return "off" if found is None else str(found)


def _compression(text: str) -> str:
    word = text.strip().lower()
    if word in {"lz4", "none"}:
        return word
    match = _ZSTD.match(word)
    if match is None:
        raise ValueError("expected zstd:1 to zstd:19, lz4 or none")
    return f"zstd:{match[1] or 1}"


def _time_zone(text: str) -> str:
    if not is_time_zone(text):
        raise ValueError("expected a time zone such as UTC or Europe/Berlin")
    return text


def is_time_zone(name: str) -> bool:
    """Whether the name is one of the IANA database's."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError):
        return False  # not there (a KeyError is one of these, too), a path outside, a folder
    except KeyError:
        return False
    return True


def _connection(given: object) -> object:
    text = given.get_secret_value() if isinstance(given, SecretStr) else given
    if isinstance(text, str):
        dsn.check_shape(text)
    return given


RepositoryText = Annotated[str, _text(_repository)]
Dsn = Annotated[SecretStr, BeforeValidator(_connection)]
SlotName = Annotated[str, _pattern(_SLOT, "a slot's name has 1 to 63 lower-case letters, digits and underscores")]
ApplicationName = Annotated[str, _pattern(_APPLICATION_NAME, "expected 1 to 63 printable ASCII characters")]
HostName = Annotated[str, _pattern(_ROLE, "expected 1 to 63 characters")]
ScheduleText = Annotated[str, _text(_schedule)]
OptionalSchedule = Annotated[str, _text(_optional_schedule)]
ListenText = Annotated[str, _text(_listen)]
TimeZoneName = Annotated[str, _text(_time_zone)]
CompressionText = Annotated[str, _text(_compression)]
Switch = Annotated[bool, _text(values.parse_bool)]
Rate = Annotated[int, _text(values.parse_rate)]
