"""What WAL-G says of the files of a backup: its files_metadata.json, or the same fields in a sentinel before version 1.

``Files`` names every regular file of the server's directory (and in local mode the directories): those that the tars
hold, whole or as increments, and those that are skipped because the parent has them unchanged. The decoder's rules are
Go's: keys match without regard to case, the last of equal names counts, null is as good as missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from pgbackup.core.backup import CONTROL_FILE
from pgbackup.errors import CorruptObject
from pgbackup.repository.json_events import Event, json_events
from pgbackup.repository.tar_header import TarProblem, normal_name
from pgbackup.storage.base import ByteStream

LARGE_FIELDS: Final = frozenset({"files", "tarfilesets", "databasesbynames"})
UTILITY_FILES: Final = frozenset({CONTROL_FILE, "backup_label", "tablespace_map"})
"""What belongs to a backup though its list does not name it."""

_MAX_KEPT_BYTES: Final = 4 << 20
_BAD_CHARACTER: Final = "\ufffd"


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One entry; ``name`` as the tar's member is called once normalised.

    ``is_certain`` False: the name had bytes that Go's encoder replaced, so nobody knows what the member is called.
    """

    name: str
    is_incremented: bool
    is_skipped: bool
    is_certain: bool = True


def iter_listed_files(key: str, stream: ByteStream) -> Iterator[ListedFile]:
    """The entries of ``Files``, in order, in bounded memory. Raises CorruptObject."""
    field = ""
    entries = _Entries(key)
    for depth, (event, value) in json_events(key, stream):
        if depth == 0 and event not in ("start_map", "end_map"):
            raise CorruptObject(key, "not a JSON object")
        if event == "map_key" and depth == 1:
            field = str(value).lower()
        elif field == "files" and depth:
            entry = entries.take(depth, event, value)
            if entry is not None:
                yield entry


class _Entries:
    """Puts the entries together out of the events inside ``Files``."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._name = ""
        self._flag = ""
        self._flags: dict[str, bool] = {}

    def take(self, depth: int, event: str, value: Any) -> ListedFile | None:
        """The entry that ends with this event."""
        if event == "map_key":
            if depth == 2:
                self._name, self._flags = value, {}
            self._flag = str(value).lower() if depth == 3 else ""
        elif depth == 2 and event in ("end_map", "null"):
            return _listed(self._key, self._name, self._flags)
        elif depth < 3 and event not in ("start_map", "end_map", "null"):
            what = "its field Files" if depth == 1 else f"its entry for {self._name!r}"
            raise CorruptObject(self._key, f"{what} is not an object")
        elif depth == 3 and self._flag in ("isincremented", "isskipped"):
            if event not in ("boolean", "null"):
                raise CorruptObject(self._key, f"its entry for {self._name!r} is neither true nor false")
            self._flags[self._flag] = bool(value)
        return None


def _listed(key: str, name: str, flags: dict[str, bool]) -> ListedFile:
    try:
        path = normal_name(name)
    except TarProblem as exc:
        raise CorruptObject(key, str(exc)) from exc
    incremented, skipped = flags.get("isincremented", False), flags.get("isskipped", False)
    if incremented and skipped:
        raise CorruptObject(key, f"its entry for {name!r} is both incremented and skipped")
    return ListedFile(path, incremented, skipped, _BAD_CHARACTER not in name)


def without_lists(key: str, stream: ByteStream) -> dict[str, Any]:
    """A JSON object without its lists of files, which may be huge. Raises CorruptObject when the rest is, too."""
    builder = _Builder(key)
    skipping = False
    for depth, event in json_events(key, stream):
        if depth == 1 and event[0] == "map_key":
            skipping = str(event[1]).lower() in LARGE_FIELDS
        if not skipping or depth == 0:
            builder.take(event)
    return builder.result()


class _Builder:
    """Builds the values of events, up to a size."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._open: list[Any] = []
        self._names: list[str] = []
        self._result: Any = None
        self._size = 0

    def take(self, event: Event) -> None:
        name, value = event
        self._size += 32 + (len(value) if isinstance(value, str) else 0)
        if self._size > _MAX_KEPT_BYTES:
            raise CorruptObject(self._key, f"it holds more than {_MAX_KEPT_BYTES} bytes besides its lists of files")
        if name == "map_key":
            self._names[-1] = value
        elif name in ("start_map", "start_array"):
            made: Any = {} if name == "start_map" else []
            self._add(made)
            self._open.append(made)
            self._names.append("")
        elif name in ("end_map", "end_array"):
            self._open.pop()
            self._names.pop()
        else:
            self._add(float(value) if isinstance(value, Decimal) else value)

    def _add(self, value: Any) -> None:
        if not self._open:
            self._result = value
        elif isinstance(self._open[-1], dict):
            self._open[-1][self._names[-1]] = value
        else:
            self._open[-1].append(value)

    def result(self) -> dict[str, Any]:
        if not isinstance(self._result, dict):
            raise CorruptObject(self._key, "not a JSON object")
        return self._result
