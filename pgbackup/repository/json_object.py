"""Read a JSON object that somebody else wrote: any key may be missing, none may have another type than expected.

The rules are those of WAL-G's decoder (Go's encoding/json): unknown keys are ignored, keys match without regard to
case, ``null`` counts as missing, and a value of another type makes the whole document unusable. Numbers are integers of
64 bits, times are RFC 3339 with a zone; Go's zero time counts as missing. Whatever is wrong is a CorruptObject.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from pgbackup.errors import CorruptObject

_RFC_3339 = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?)(Z|[+-]\d{2}:\d{2})")
_MAX = (1 << 64) - 1
_YEAR_ONE = datetime(2, 1, 1, tzinfo=UTC)


def parse_object(key: str, data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``, which is object ``key``. Raises CorruptObject."""
    try:
        document = json.loads(data, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as exc:
        raise CorruptObject(key, f"not JSON ({exc})") from exc
    if not isinstance(document, dict):
        raise CorruptObject(key, "not a JSON object")
    return document


class JsonObject:
    """The fields of one JSON object; ``where`` is the key of the document, for errors."""

    def __init__(self, where: str, fields: Mapping[str, Any]) -> None:
        self._where = where
        self._fields = {name.lower(): value for name, value in fields.items()} | dict(fields)

    @classmethod
    def parse(cls, key: str, data: bytes) -> JsonObject:
        return cls(key, parse_object(key, data))

    def value(self, name: str) -> Any:
        """The value as JSON has it, or None."""
        return self._fields.get(name, self._fields.get(name.lower()))

    def integer(self, name: str) -> int | None:
        """A number from 0 to 2^64 - 1."""
        value = self.value(name)
        if value is not None and (type(value) is not int or not 0 <= value <= _MAX):
            self._refuse(name, "is not an unsigned integer")
        return value

    def text(self, name: str) -> str:
        """A text; empty when it is missing."""
        value = self.value(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            self._refuse(name, "is not text")
        return value

    def flag(self, name: str) -> bool | None:
        value = self.value(name)
        if value is not None and not isinstance(value, bool):
            self._refuse(name, "is neither true nor false")
        return value

    def moment(self, name: str) -> datetime | None:
        """A time, aware, UTC, cut to microseconds."""
        text = self.text(name)
        if not text:
            return None
        match = _RFC_3339.fullmatch(text)
        if match is None:
            self._refuse(name, "is not a time with a zone")
        try:
            moment = datetime.fromisoformat(match[1] + match[2]).astimezone(UTC)
        except (ValueError, OverflowError):
            # Go's zero time may lie before the year 1 once the zone is taken off.
            if text.startswith("0001-01-01"):
                return None
            self._refuse(name, "is not a time")
        return moment if moment >= _YEAR_ONE else None

    def child(self, name: str) -> JsonObject | None:
        """An object inside this one."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self._refuse(name, "is not an object")
        return JsonObject(self._where, value)

    def texts(self, name: str) -> list[str]:
        """A list of texts; empty when it is missing."""
        value = self.value(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._refuse(name, "is not a list of texts")
        return value

    def _refuse(self, name: str, problem: str) -> NoReturn:
        raise CorruptObject(self._where, f"its field {name} {problem}")


def _finite(text: str) -> float:
    """``1e400`` is a number of JSON, and infinite as a float: whoever makes an integer of it would fall over."""
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
