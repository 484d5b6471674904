"""Tar headers as pure functions: ustar, old V7, GNU and pax, whoever wrote them.

A header is one block of 512 bytes; numbers are octal text or, where too large, base-256 (POSIX.1-1988 ``ustar``,
POSIX.1-2001 ``pax``, GNU tar's manual, "Basic Tar Format"). Names are decoded as the file system's names are
(UTF-8, other bytes kept as surrogates), so they reach the disk byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

BLOCK_BYTES = 512
MAX_EXTENSION_BYTES = 1 << 20
"""Largest pax or long-name record that is believed; real ones have some hundred bytes."""

Kind = Literal["file", "directory", "symlink", "hardlink", "other"]

_KINDS: dict[bytes, Kind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"5": "directory",
}
_PAX_RECORD = re.compile(rb"(\d{1,8}) ([^=\n]+)=")
_TOO_LARGE = 1 << 63
_WITHOUT_DATA = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))


class TarProblem(ValueError):
    """The bytes are not a tar header that we can follow."""


@dataclass(slots=True)
class Header:
    """One header block as written; ``type_flag`` keeps the byte that says what it is."""

    name: str
    type_flag: bytes
    size_bytes: int
    mode: int
    mtime: float
    linkname: str

    @property
    def kind(self) -> Kind:
        if self.type_flag in (b"0", b"\0") and self.name.endswith("/"):
            return "directory"
        return _KINDS.get(self.type_flag, "other")

    @property
    def data_bytes(self) -> int:
        """Bytes of content that follow the header, without padding."""
        return 0 if self.type_flag in _WITHOUT_DATA else self.size_bytes

    def apply(self, extension: dict[str, str]) -> None:
        """Take over what pax records or GNU long names say. Raises TarProblem for what we cannot follow."""
        if any(keyword.startswith("GNU.sparse") for keyword in extension):
            raise TarProblem(f"member {self.name!r} is stored sparse")
        self.name = extension.get("path", self.name)
        self.linkname = extension.get("linkpath", self.linkname)
        try:
            self.size_bytes = int(extension.get("size", self.size_bytes))
            self.mtime = float(extension.get("mtime", self.mtime))
        except ValueError as exc:
            raise TarProblem(f"member {self.name!r} has a pax record that is not a number") from exc
        _check_size(self.name, self.size_bytes)


def parse_header(block: bytes) -> Header:
    """Read one block that is not all zeros. Raises TarProblem."""
    if not _checksum_fits(block):
        raise TarProblem("a header's checksum does not fit")
    name = _text(block[0:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    type_flag = block[156:157]
    size_bytes = _number(block[124:136])
    _check_size(name, size_bytes)
    if type_flag == b"S":
        raise TarProblem(f"member {name!r} is stored sparse")
    mode, mtime = _number(block[100:108]) & 0o7777, _number(block[136:148])
    return Header(name, type_flag, size_bytes, mode, float(mtime), _text(block[157:257]))


def parse_pax(data: bytes) -> dict[str, str]:
    """The records of a pax header, ``length keyword=value`` each. Raises TarProblem."""
    records: dict[str, str] = {}
    position = 0
    while position < len(data):
        match = _PAX_RECORD.match(data, position)
        end = position + int(match[1]) if match else 0
        if match is None or end > len(data) or end <= match.end() or data[end - 1 : end] != b"\n":
            raise TarProblem("a pax header is malformed")
        records[match[2].decode("utf-8", "replace")] = decode_name(data[match.end() : end - 1])
        position = end
    return records


def normal_name(name: str) -> str:
    """The member's path below the data directory: no leading ``/`` or ``./``, no trailing ``/``; "" is the root.

    Raises TarProblem for a name that leads out of it.
    """
    if "\0" in name:
        raise TarProblem(f"member {name!r} has a zero byte in its name")
    if "/" not in name and name not in (".", ".."):
        return name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise TarProblem(f"member {name!r} leads out of the data directory")
    return "/".join(parts)


def decode_name(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _text(field: bytes) -> str:
    return decode_name(field.split(b"\0", 1)[0])


def _check_size(name: str, size_bytes: int) -> None:
    if not 0 <= size_bytes < _TOO_LARGE:
        raise TarProblem(f"member {name!r} has a size that no file has")


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        return value - (1 << bits) if field[0] == 0xFF else value - (1 << bits - 1)
    text = field.split(b"\0", 1)[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError as exc:
        raise TarProblem(f"not an octal number in a header: {text[:20]!r}") from exc


def _checksum_fits(block: bytes) -> bool:
    try:
        stored = _number(block[148:156])
    except TarProblem:
        return False
    total = sum(block) - sum(block[148:156]) + 8 * 0x20
    if stored == total:
        return True
    high = sum(1 for byte in block[:148] + block[156:] if byte & 0x80)
    return stored == total - 256 * high
