"""Gives a tar member another name, as pure functions: in place where its header has room, else by a pax header.

A ustar header holds 100 bytes of name and 155 of prefix, joined by ``/``; GNU's keeps other things in the prefix. What
fits neither goes into an extended header before the member (POSIX.1-2001, "pax Extended Header").
"""

from __future__ import annotations

from collections.abc import Mapping

from pgbackup.repository.tar_header import BLOCK_BYTES

_NAME_BYTES = 100
_PREFIX_BYTES = 155
_NAME = slice(0, _NAME_BYTES)
_SIZE = slice(124, 136)
_CHECKSUM = slice(148, 156)
_TYPE_FLAG = slice(156, 157)
_MAGIC = slice(257, 263)
_PREFIX = slice(345, 345 + _PREFIX_BYTES)
_USTAR = b"ustar\0"


def renamed(block: bytes, name: str, records: Mapping[str, str]) -> bytes:
    """The member's header under its new name, behind a pax header where one is needed.

    ``records``: what extended headers said of the member before; all but its old name is kept.
    """
    raw = name.encode("utf-8", "surrogateescape")
    kept = {keyword: value for keyword, value in records.items() if keyword != "path"}
    fields = _split(raw, with_prefix=block[_MAGIC] == _USTAR)
    if fields is None:
        kept["path"] = name
        fields = raw[:_NAME_BYTES], b""
    header = bytearray(block)
    header[_NAME] = fields[0].ljust(_NAME_BYTES, b"\0")
    if block[_MAGIC] == _USTAR:
        header[_PREFIX] = fields[1].ljust(_PREFIX_BYTES, b"\0")
    _set_checksum(header)
    return (_pax_header(header, kept) if kept else b"") + bytes(header)


def _split(name: bytes, *, with_prefix: bool) -> tuple[bytes, bytes] | None:
    """(name, prefix) as the fields hold them, or None when they cannot."""
    if len(name) <= _NAME_BYTES:
        return name, b""
    if not with_prefix:
        return None
    # A trailing slash belongs to the name; what is left of the cut must not be empty either.
    cut = name.find(b"/", max(1, len(name) - _NAME_BYTES - 1), len(name) - 1)
    return (name[cut + 1 :], name[:cut]) if 0 < cut <= _PREFIX_BYTES else None


def _pax_header(member: bytearray, records: Mapping[str, str]) -> bytes:
    """An extended header with its records, owned and dated as the member."""
    data = b"".join(_record(keyword, value) for keyword, value in sorted(records.items()))
    header = bytearray(member)
    header[_NAME] = b"PaxHeaders/member".ljust(_NAME_BYTES, b"\0")
    header[_PREFIX] = bytes(_PREFIX_BYTES)
    header[_SIZE] = b"%011o\0" % len(data)
    header[_TYPE_FLAG] = b"x"
    _set_checksum(header)
    return bytes(header) + data + bytes(-len(data) % BLOCK_BYTES)


def _record(keyword: str, value: str) -> bytes:
    """``length keyword=value\\n``; the length counts itself."""
    body = b" %b=%b\n" % (keyword.encode(), value.encode("utf-8", "surrogateescape"))
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def _set_checksum(header: bytearray) -> None:
    header[_CHECKSUM] = b" " * 8
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
