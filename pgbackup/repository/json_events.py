"""Read JSON that somebody else wrote as a stream of events, in bounded memory. The only importer of ijson.

WAL-G's list of files may have more than a gigabyte, and old versions put it into the sentinel. Bounded are a single
text or number (by what may be read without an event) and the depth; whatever is wrong is a CorruptObject.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import ijson

from pgbackup.errors import CorruptObject
from pgbackup.storage.base import ByteStream

_READ_BYTES: Final = 64 << 10
_MAX_TOKEN_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 64
_MAX_DIGITS: Final = 4000
_DIGITS: Final = re.compile(rb"[0-9]{%d}" % _MAX_DIGITS)
"""What int() takes, and less. Beyond it ijson's C backend (3.6) frees what it still uses: the second such number in a
process ends it with a segmentation fault."""

Event = tuple[str, Any]
"""Its name (start_map, map_key, end_map, start_array, end_array, string, number, boolean, null) and its value."""


def json_events(key: str, stream: ByteStream) -> Iterator[tuple[int, Event]]:
    """(depth, event) for all of the JSON in ``stream``, which is object ``key``; brackets belong to the depth outside.

    Raises CorruptObject.
    """
    source = _Counted(key, stream)
    depth = 0
    try:
        for name, value in ijson.basic_parse(source, buf_size=_READ_BYTES):
            # Not use_float: then an integer above 2^63 is an error, and system identifiers have 64 bits.
            source.since_event = 0
            if name in ("end_map", "end_array"):
                depth -= 1
            yield depth, (name, value)
            if name in ("start_map", "start_array"):
                depth += 1
                if depth > _MAX_DEPTH:
                    raise CorruptObject(key, "it is nested too deeply")
    except (ijson.JSONError, ValueError, ArithmeticError) as exc:
        raise CorruptObject(key, f"not JSON ({exc})") from exc


class _Counted:
    """The stream; it ends in an error where one text or number is far larger than any real one."""

    def __init__(self, key: str, stream: ByteStream) -> None:
        self.since_event = 0
        self._tail = b""
        self._key = key
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if self.since_event > _MAX_TOKEN_BYTES:
            raise CorruptObject(self._key, f"it holds a text of more than {_MAX_TOKEN_BYTES} bytes")
        data = self._stream.read(size) if size else b""
        seen = self._tail + data
        if _DIGITS.search(seen):
            raise CorruptObject(self._key, f"it holds a number of more than {_MAX_DIGITS} digits")
        self._tail = seen[-_MAX_DIGITS:]
        self.since_event += len(data)
        return data
