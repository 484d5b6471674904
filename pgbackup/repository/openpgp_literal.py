"""The content of a decrypted OpenPGP message: one literal data packet, taken byte for byte.

Read here and not by ``gpg --decrypt``, which drops the carriage returns of a packet that is marked as text: WAL-G marks
every packet so, whatever it holds (go-crypto does unless it is told otherwise), WAL-E marks none. RFC 4880, sections
4.2 (headers and lengths) and 5.9. Neither tool compresses or signs in OpenPGP.

Pure: blocks in, blocks out, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_LITERAL: Final = 11
_MODES: Final = frozenset({b"b", b"t", b"u", b"l", b"1"})
_TIME_BYTES: Final = 4


class LiteralProblem(ValueError):
    """The bytes are not one packet of literal data."""


def literal_content(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """What the one literal packet in ``blocks`` holds, in pieces. Raises LiteralProblem, also for what is behind it."""
    source = _Source(blocks)
    tag, body = _packet(source)
    if tag != _LITERAL:
        raise LiteralProblem(f"it holds an OpenPGP packet of kind {tag}, which neither WAL-E nor WAL-G writes")
    packet = _Source(body)
    if packet.take(1) not in _MODES:
        raise LiteralProblem("its OpenPGP packet is of no known mode")
    packet.take(packet.take(1)[0])  # a file's name
    packet.take(_TIME_BYTES)
    while data := packet.some():
        yield data
    if source.some():
        raise LiteralProblem("it goes on after the end of its OpenPGP packet")


def _packet(source: _Source) -> tuple[int, Iterator[bytes]]:
    """The kind of the packet that begins here, and its body."""
    first = source.take(1)[0]
    if first & 0xC0 == 0xC0:
        return first & 0x3F, _new_body(source)
    if not first & 0x80:
        raise LiteralProblem("it is not an OpenPGP packet")
    width = {0: 1, 1: 2, 2: 4}.get(first & 3)
    body = iter(source.some, b"") if width is None else source.exactly(int.from_bytes(source.take(width), "big"))
    return first >> 2 & 0x0F, body


def _new_body(source: _Source) -> Iterator[bytes]:
    """A body in the new format: any number of parts that have their own lengths, then the last one."""
    while 224 <= (first := source.take(1)[0]) < 255:
        yield from source.exactly(1 << (first & 0x1F))
    if first < 192:
        size = first
    elif first < 224:
        size = (first - 192 << 8) + source.take(1)[0] + 192
    else:
        size = int.from_bytes(source.take(4), "big")
    yield from source.exactly(size)


class _Source:
    """Exact bytes out of blocks of any size."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = b""
        self._position = 0

    def some(self, limit: int | None = None) -> bytes:
        """At least one byte, up to ``limit``; empty at the end."""
        if self._position == len(self._block):
            self._block, self._position = next(self._blocks, b""), 0
        end = len(self._block) if limit is None else min(self._position + limit, len(self._block))
        begin, self._position = self._position, end
        return self._block[begin:end]

    def exactly(self, size: int) -> Iterator[bytes]:
        """``size`` bytes, in pieces. Raises LiteralProblem when there are fewer."""
        while size:
            data = self.some(size)
            if not data:
                raise LiteralProblem("it is cut short: its OpenPGP packet does not end")
            size -= len(data)
            yield data

    def take(self, size: int) -> bytes:
        """``size`` bytes, few of them, at once."""
        return b"".join(self.exactly(size))
