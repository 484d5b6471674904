"""Read the members of a tar from a stream, tolerant of who wrote it and strict about damage.

Tolerated: pax, GNU, ustar and V7 headers; names with a leading ``/`` or ``./`` and an empty root name; a missing end
and missing padding after the last member (WAL-G's remote mode does not close its tars). Refused as CorruptObject: an
end inside a member or a header, bytes other than zero after the end, names that lead out of the data directory, sparse
members. The stream is read to its very end, so that the codec below gets to verify it.

Content is handed out as views of the blocks that the stream returned, without a copy.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgbackup.errors import CorruptObject
from pgbackup.repository.tar_header import (
    BLOCK_BYTES,
    MAX_EXTENSION_BYTES,
    Header,
    Kind,
    TarProblem,
    decode_name,
    normal_name,
    parse_header,
    parse_pax,
)
from pgbackup.storage.base import ByteStream

READ_BYTES = 1 << 20
_EMPTY = memoryview(b"")
_ZEROS = bytes(BLOCK_BYTES)
_CLEAN = bytes(READ_BYTES)


class Member:
    """One member; its content can be read until the iterator is advanced. ``name`` "" is the root directory."""

    __slots__ = ("_blocks", "_left", "kind", "linkname", "mode", "mtime", "name", "size_bytes")

    def __init__(self, name: str, header: Header, blocks: _Blocks) -> None:
        self.name = name
        self.kind: Kind = header.kind
        self.size_bytes = header.data_bytes
        self.mode = header.mode
        self.mtime = header.mtime
        self.linkname = header.linkname
        self._blocks = blocks
        self._left = header.data_bytes

    def read(self, size: int = -1) -> memoryview:
        """Up to ``size`` bytes of the content (any convenient number for -1), empty at its end.

        The view stays valid. Raises CorruptObject when the object ends inside the member.
        """
        wanted = self._left if size < 0 else min(size, self._left)
        if not wanted:
            return _EMPTY
        view = self._blocks.take(wanted)
        if not view:
            raise self._blocks.corrupt(f"it ends inside member {self.name!r}, {self._left} bytes early")
        self._left -= len(view)
        return view

    def skip(self) -> None:
        """Read the rest of the content and drop it."""
        while self._left:
            self.read()


def iter_members(stream: ByteStream, key: str) -> Iterator[Member]:
    """The members of a tar in order; what is not read of one is skipped. ``key`` names the object in CorruptObject."""
    blocks = _Blocks(stream, key)
    extension: dict[str, str] = {}
    standing: dict[str, str] = {}
    while (block := blocks.header()) is not None:
        try:
            header = parse_header(block)
            if header.type_flag in (b"x", b"X", b"g", b"L", b"K"):
                _extend(header, blocks, extension, standing)
                continue
            header.apply(standing | extension)
            extension = {}
            member = Member(normal_name(header.name), header, blocks)
        except TarProblem as exc:
            raise blocks.corrupt(str(exc)) from exc
        yield member
        member.skip()
        blocks.skip_padding(member.size_bytes)
    if extension:
        raise blocks.corrupt("it ends after an extended header, without the member")
    blocks.expect_zeros()


def _extend(header: Header, blocks: _Blocks, extension: dict[str, str], standing: dict[str, str]) -> None:
    """Read a pax header or a GNU long name, which belong to the next member (``g``: to all that follow)."""
    if header.size_bytes > MAX_EXTENSION_BYTES:
        raise TarProblem(f"an extended header of {header.size_bytes} bytes")
    data = blocks.exactly(header.size_bytes)
    blocks.skip_padding(header.size_bytes)
    if header.type_flag == b"g":
        standing.update(parse_pax(data))
    elif header.type_flag in (b"L", b"K"):
        keyword = "path" if header.type_flag == b"L" else "linkpath"
        extension[keyword] = decode_name(data.split(b"\0", 1)[0])
    else:
        extension.update(parse_pax(data))


class _Blocks:
    """The stream, buffered by one block of READ_BYTES, given out as views."""

    def __init__(self, stream: ByteStream, key: str) -> None:
        self._stream = stream
        self._key = key
        self._view = _EMPTY
        self._position = 0

    def corrupt(self, problem: str) -> CorruptObject:
        return CorruptObject(self._key, problem)

    def take(self, size: int) -> memoryview:
        """At least one and up to ``size`` bytes; empty at the end of the stream."""
        if self._position == len(self._view):
            self._view = memoryview(self._stream.read(READ_BYTES))
            self._position = 0
        view = self._view[self._position : self._position + size]
        self._position += len(view)
        return view

    def exactly(self, size: int) -> bytes:
        """``size`` bytes. Raises CorruptObject when the stream ends before."""
        data = self.at_most(size)
        if len(data) < size:
            raise self.corrupt("it ends inside a header")
        return data

    def at_most(self, size: int) -> bytes:
        """``size`` bytes, fewer only at the end of the stream."""
        view = self.take(size)
        if len(view) == size:
            return bytes(view)
        parts = [view]
        missing = size - len(view)
        while missing and (view := self.take(missing)):
            parts.append(view)
            missing -= len(view)
        return b"".join(parts)

    def header(self) -> bytes | None:
        """The next header block, or None at the end of the archive: a block of zeros, or the end of the stream."""
        block = self.at_most(BLOCK_BYTES)
        if block == _ZEROS[: len(block)]:
            return None
        if len(block) < BLOCK_BYTES:
            raise self.corrupt("it ends inside a header")
        return block

    def skip_padding(self, size: int) -> None:
        """Skip to the next block's border; an archive may end without its last padding."""
        self.at_most(-size % BLOCK_BYTES)

    def expect_zeros(self) -> None:
        """Read to the end of the stream. Raises CorruptObject for anything but zeros."""
        while view := self.take(READ_BYTES):
            if view != _CLEAN[: len(view)]:
                raise self.corrupt("it has data after the end of the archive")
