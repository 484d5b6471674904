"""The open WAL segment, as it grows: what is not yet in a piece, and the comparison with what is stored already.

After a restart a segment is received again from its start. Bytes for which stored pieces exist are compared with them
(by CRC), not stored again; other bytes mean another cluster or another branch. Used by one thread, no I/O.

Memory: ``pending`` holds at most one piece (PIECE_BYTES and one message), because the session reads no more until that
is taken; nothing is pending while the server is known to be past the segment (then the whole segment follows at once),
nor where no pieces are wanted.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from pgbackup.core.lsn import SegmentName
from pgbackup.errors import OTHER_WRITER_HINT, WrongCluster
from pgbackup.repository.wal_listing import chain_end

PIECE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes ``[first, end)`` of a segment, as offsets in it."""

    first: int
    end: int
    blocks: tuple[bytes, ...]


@dataclass(slots=True)
class StoredPiece:
    """A piece that the repository holds: its range and the CRC-32 of its bytes; ``seen`` grows as we receive."""

    key: str
    first: int
    end: int
    crc: int
    seen: int = field(default=0)


class OpenSegment:
    """One segment being received. ``received`` is the offset of the next byte."""

    def __init__(self, name: SegmentName, stored: list[StoredPiece] | None = None) -> None:
        self.name = name
        self.received = 0
        self.catching_up = False
        self._unverified = sorted(stored or [], key=lambda piece: (piece.first, piece.end))
        self._verified: list[tuple[int, int]] = []
        self.covered = 0
        self._pending: list[bytes] = []
        self._pending_first = chain_end((p.first, p.end) for p in self._unverified)
        self.pending_bytes = 0

    @property
    def complete(self) -> bool:
        return self.received == self.name.segment_bytes

    @property
    def room(self) -> int:
        """Bytes until the segment is complete."""
        return self.name.segment_bytes - self.received

    def append(self, block: bytes) -> None:
        """Take the next bytes. Raises WrongCluster when they differ from what is stored for the same range."""
        first, end = self.received, self.received + len(block)
        if self._unverified:
            self._compare(block, first, end)
        self.received = end
        if self.catching_up or end <= self._pending_first:
            return
        if first < self._pending_first + self.pending_bytes:
            block = block[self._pending_first + self.pending_bytes - first :]
        self._pending.append(block)
        self.pending_bytes += len(block)

    def skip_pieces(self) -> None:
        """No more pieces of this segment: the server is past it, or none are wanted."""
        if not self.catching_up:
            self.catching_up = True
            self._pending.clear()
            self.pending_bytes = 0

    def take_piece(self) -> Piece | None:
        """What arrived since the last piece, or None."""
        if not self._pending:
            return None
        first = self._pending_first
        piece = Piece(first, first + self.pending_bytes, tuple(self._pending))
        self._pending_first = piece.end
        self._pending.clear()
        self.pending_bytes = 0
        return piece

    def _compare(self, block: bytes, first: int, end: int) -> None:
        view = memoryview(block)
        left: list[StoredPiece] = []
        for piece in self._unverified:
            begin, stop = max(piece.first, first), min(piece.end, end)
            if begin < stop:
                piece.seen = zlib.crc32(view[begin - first : stop - first], piece.seen)
            if piece.end > end:
                left.append(piece)
                continue
            if piece.seen != piece.crc:
                raise WrongCluster(
                    f"segment {self.name} from the server differs from the stored piece {piece.key}",
                    detail=f"bytes {piece.first} to {piece.end} of the segment are not the same",
                    hint=OTHER_WRITER_HINT,
                )
            self._verified.append((piece.first, piece.end))
        self._unverified = left
        self.covered = chain_end(self._verified)
