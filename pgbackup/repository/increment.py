"""Increments of WAL-G's delta backups: the pages of one file that changed since the parent, to be put over it.

A member of a tar (little-endian): ``wi1U``, the file's size (8 bytes), the number of pages (4), their numbers (4 each),
the pages in the same order. Everything must add up: the member's size, ascending numbers. A page may lie behind the
size: WAL-G takes the size first and scans then, while the file grows.

Memory: four bytes for each page of one file, 512 KiB for a gigabyte.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from pgbackup.errors import CorruptObject
from pgbackup.repository.tar_read import Member

MAGIC: Final = b"wi1\x55"
PAGE_BYTES: Final = 8192
MAX_FILE_BYTES: Final = 64 << 30
"""Files of Postgres have 1 GiB unless it was built for more."""

_HEAD: Final = struct.Struct("<4sQI")
_MAX_PAGES: Final = MAX_FILE_BYTES // PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Increment:
    """``file_bytes``: the size that the file has afterwards. ``pages`` must be read to its end."""

    file_bytes: int
    page_count: int
    pages: Iterator[tuple[int, memoryview]]
    """(offset in the file, bytes), a page or a part of one each."""


def read_increment(key: str, member: Member) -> Increment:
    """Read the head of an increment. Raises CorruptObject, also while its pages are read."""

    def corrupt(problem: str) -> CorruptObject:
        return CorruptObject(key, f"{member.name!r} is no increment: {problem}")

    if member.size_bytes < _HEAD.size:
        raise corrupt(f"it has {member.size_bytes} bytes")
    magic, file_bytes, count = _HEAD.unpack(_exactly(member, _HEAD.size))
    if magic != MAGIC:
        raise corrupt(f"it begins with {magic!r}")
    if file_bytes > MAX_FILE_BYTES or count > _MAX_PAGES:
        raise corrupt(f"it is for a file of {file_bytes} bytes, and has {count} pages")
    wanted = _HEAD.size + count * (4 + PAGE_BYTES)
    if member.size_bytes != wanted:
        raise corrupt(f"{count} pages of {PAGE_BYTES} bytes take {wanted} bytes, it has {member.size_bytes}")
    numbers = array("I")
    numbers.frombytes(_exactly(member, 4 * count))
    if sys.byteorder == "big":
        numbers.byteswap()
    if any(left >= right for left, right in pairwise(numbers)) or (count and numbers[-1] >= _MAX_PAGES):
        raise corrupt("its pages are not in order")
    return Increment(file_bytes, count, _pages(member, numbers))


def _pages(member: Member, numbers: array[int]) -> Iterator[tuple[int, memoryview]]:
    for number in numbers:
        begin, end = number * PAGE_BYTES, (number + 1) * PAGE_BYTES
        while begin < end:
            view = member.read(end - begin)
            yield begin, view
            begin += len(view)


def _exactly(member: Member, size: int) -> bytes:
    parts = []
    while size:
        view = member.read(size)
        parts.append(bytes(view))
        size -= len(view)
    return b"".join(parts)
