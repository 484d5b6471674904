"""Objects of lzop, as WAL-E writes them: the container is read here, its blocks (LZO1X) by lzallright, an extra.

The container as lzop 1.04 writes and reads it (its source, ``write_header``, ``x_decompress``), big-endian: a magic
number; versions, method, level, flags, mode, time and a name, with a checksum over these; then blocks of a size, a
stored size and checksums; a size of zero ends it. Blocks have 256 KiB at the most.

Memory: a hostile block of 1 MiB may expand to 256 MiB before its size is seen to be wrong, that is LZO's limit; a real
one takes half a megabyte. For reading only. The only importer of lzallright.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Final

try:
    import lzallright
except ImportError:  # the extra is not installed
    lzallright = None  # type: ignore[assignment,unused-ignore]

MAGIC: Final = b"\x89LZO\x00\r\n\x1a\n"
HINT: Final = "Install what reads them: pip install 'pgbackup[wal-e]'."
MAX_BLOCK_BYTES: Final = 1 << 20

_METHODS: Final = (1, 2, 3)  # LZO1X-1, LZO1X-1(15), LZO1X-999: one decompressor for all
_WITH_LEVEL: Final = 0x0940
_READABLE: Final = 0x1040
_ADLER32_CONTENT, _ADLER32_STORED, _CRC32_CONTENT, _CRC32_STORED = 0x1, 0x2, 0x100, 0x200
_EXTRA_FIELD, _MULTIPART, _FILTER, _HEADER_CRC32 = 0x40, 0x400, 0x800, 0x1000

Problem = Callable[[str], Exception]
Checksum = Callable[[bytes], int]


def is_available() -> bool:
    """Whether lzallright is installed."""
    return lzallright is not None


def decode(
    blocks: Iterator[bytes], problem: Problem, on_unproven: Callable[[], None] = lambda: None
) -> Iterator[bytes]:
    """The content of the one container in ``blocks``, block by block.

    It ends only at the end mark, when every checksum was right and nothing follows; ``on_unproven`` is called for a
    container without checksums. Raises ``problem(text)``.
    """
    reader = _Reader(blocks, problem)
    flags = _read_header(reader)
    of_content = _checksums(flags, _ADLER32_CONTENT, _CRC32_CONTENT)
    of_stored = _checksums(flags, _ADLER32_STORED, _CRC32_STORED)
    if not of_content and not of_stored:
        on_unproven()
    while size := reader.number(4):
        stored_size = reader.number(4)
        if size > MAX_BLOCK_BYTES or not 0 < stored_size <= size:
            raise problem(f"lzop: a block of {size} bytes in {stored_size}, which lzop does not write")
        wanted = [(checksum, reader.number(4)) for checksum in of_content]
        # What did not get smaller is stored as it is, and its checksums once.
        wanted_stored = [(checksum, reader.number(4)) for checksum in of_stored] if stored_size < size else []
        stored = reader.take(stored_size)
        if any(checksum(stored) != value for checksum, value in wanted_stored):
            raise problem("lzop: the checksum of a stored block is wrong")
        data = stored if stored_size == size else _expand(stored, size, problem)
        if any(checksum(data) != value for checksum, value in wanted):
            raise problem("lzop: the checksum of a block's content is wrong")
        yield data
    reader.expect_end()


def _checksums(flags: int, adler32: int, crc32: int) -> list[Checksum]:
    """In the order in which their values are stored."""
    found: list[Checksum] = []
    if flags & adler32:
        found.append(zlib.adler32)
    if flags & crc32:
        found.append(zlib.crc32)
    return found


def _expand(stored: bytes, size: int, problem: Problem) -> bytes:
    if lzallright is None:
        raise RuntimeError("lzop objects are not opened without lzallright")
    try:
        data: bytes = lzallright.LZOCompressor.decompress(stored, size)
    except lzallright.LZOError as exc:
        raise problem(f"lzop: a block cannot be expanded ({exc})") from exc
    if len(data) != size:
        raise problem(f"lzop: a block has {len(data)} bytes instead of {size}")
    return data


def _read_header(reader: _Reader) -> int:
    """Check the header; returns its flags."""
    if reader.take(len(MAGIC)) != MAGIC:
        raise reader.problem("lzop: it does not begin as lzop's files do")
    reader.begin_header()
    version = reader.number(2)
    reader.number(2)  # the library's version
    needed = reader.number(2) if version >= _WITH_LEVEL else version
    method = reader.number(1)
    if version >= _WITH_LEVEL:
        reader.number(1)  # the level
    flags = reader.number(4)
    if flags & _FILTER:
        reader.number(4)
    reader.take(12 if version >= _WITH_LEVEL else 8)  # mode and time
    reader.take(reader.number(1))  # the file's name
    header = reader.end_header()
    checksum = zlib.crc32(header) if flags & _HEADER_CRC32 else zlib.adler32(header)
    if reader.number(4) != checksum:
        raise reader.problem("lzop: the header's checksum is wrong")
    if needed > _READABLE or method not in _METHODS or flags & (_EXTRA_FIELD | _MULTIPART | _FILTER):
        raise reader.problem(f"lzop: method {method}, version {needed:#x}, flags {flags:#x} are not what WAL-E writes")
    return flags


class _Reader:
    """Exact bytes out of blocks of any size."""

    def __init__(self, blocks: Iterator[bytes], problem: Problem) -> None:
        self.problem = problem
        self._blocks = blocks
        self._rest = b""
        self._position = 0
        self._header: list[bytes] | None = None

    def begin_header(self) -> None:
        self._header = []

    def end_header(self) -> bytes:
        """All that was taken since ``begin_header``."""
        header, self._header = b"".join(self._header or ()), None
        return header

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        """``size`` bytes. Raises the problem when there are fewer."""
        end = self._position + size
        if end <= len(self._rest):
            data = self._rest[self._position : end]
            self._position = end
        else:
            parts = [self._rest[self._position :]]
            missing = size - len(parts[0])
            while missing > 0:
                block = next(self._blocks, b"")
                if not block:
                    raise self.problem("it is cut short: the lzop file does not end")
                parts.append(block[:missing])
                self._rest, self._position = block, len(parts[-1])
                missing -= len(parts[-1])
            data = b"".join(parts)
        if self._header is not None:
            self._header.append(data)
        return data

    def expect_end(self) -> None:
        if self._position < len(self._rest) or next(self._blocks, b""):
            raise self.problem("it goes on after the end of the lzop file")
