"""The pieces of an open segment, read back: each as long as its name says, all alike where they overlap.

Pieces come and go while they are read: a `pgbackup run` merges small ones, and removes all of them when the segment is
stored whole. One that has gone is looked for again under the names that are there now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pgbackup.core.lsn import SegmentName
from pgbackup.core.wal_page import LONG_HEADER_BYTES
from pgbackup.core.wal_segment_check import SegmentCheck
from pgbackup.engines.verify.report import Findings
from pgbackup.engines.wal.pieces import compare_with_whole, read_piece
from pgbackup.engines.wal.records_check import RecordsCheck
from pgbackup.errors import CorruptObject, ObjectMissing, WrongCluster
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec
from pgbackup.storage.base import ObjectStore

_TRIES = 5


class PiecesCheck:
    """Checks the pieces of one segment; ``pages`` makes the check of its bytes."""

    def __init__(self, store: ObjectStore, codec: Codec, findings: Findings, pages: Callable[[], SegmentCheck]) -> None:
        self._store = store
        self._codec = codec
        self._findings = findings
        self._pages = pages

    def check(self, segment: SegmentName, whole_key: str | None) -> int:
        """Check all pieces, and return where their unbroken row ends, as an offset.

        With ``whole_key`` the segment is stored whole, too, and every piece has to equal it.
        """
        with self._findings.catching(keys.pieces_folder(str(segment))):
            return self._check_again_and_again(segment, whole_key)
        return 0

    def _check_again_and_again(self, segment: SegmentName, whole_key: str | None) -> int:
        for _ in range(_TRIES):
            try:
                return self._check_listed(segment, whole_key)
            except ObjectMissing:
                continue
        return self._check_listed(segment, whole_key)

    def _check_listed(self, segment: SegmentName, whole_key: str | None) -> int:
        listed = self._store.list(keys.pieces_folder(str(segment)))
        pieces = sorted(
            (name for info in listed if (name := keys.parse_piece(info.key))), key=lambda p: (p.first, -p.end)
        )
        for piece in pieces:
            if piece.end > segment.segment_bytes:
                raise CorruptObject(piece.key, f"a segment has no bytes up to {piece.end}")
        if whole_key is not None:
            self._compare(whole_key, pieces)
            return 0
        return self._check_chain(segment, pieces)

    def _compare(self, whole_key: str, pieces: list[keys.PieceName]) -> None:
        try:
            compare_with_whole(self._store, self._codec, whole_key, pieces)
        except WrongCluster as exc:
            self._findings.add("damaged", whole_key, exc.message)

    def _check_chain(self, segment: SegmentName, pieces: list[keys.PieceName]) -> int:
        pages, records = self._pages(), RecordsCheck()
        records.begin(segment)
        end = 0
        for piece, new in self._new_bytes(pieces):
            if piece.first > end:
                problem = f"no piece has the bytes {end} to {piece.first} of segment {segment}, and {piece.key} follows"
                self._findings.add("missing", keys.pieces_folder(str(segment)), problem)
                return end
            end = max(end, piece.end)
            try:
                pages.feed(new)
                is_plain = not self._codec.encrypted and not keys.split_extension(piece.key)[1]
                if is_plain and pages.may_be_read:
                    records.feed(new)
            except ValueError as exc:
                raise CorruptObject(piece.key, str(exc)) from exc
        if pieces and end >= LONG_HEADER_BYTES:
            try:
                pages.finish(end)
            except ValueError as exc:
                raise CorruptObject(pieces[-1].key, str(exc)) from exc
        return end

    def _new_bytes(self, pieces: list[keys.PieceName]) -> Iterator[tuple[keys.PieceName, bytes]]:
        """Each piece with what it has behind the ones before it. Raises CorruptObject where overlaps differ.

        Only the bytes from the piece's start on are kept of the ones before: later pieces begin there or behind it.
        """
        known, begin = b"", 0
        for piece in pieces:
            data = read_piece(self._store, self._codec, piece)
            self._findings.count(objects=1, raw_bytes=len(data))
            known, begin = known[max(piece.first - begin, 0) :], max(piece.first, begin)
            both = min(len(known), len(data))
            if known[:both] != data[:both]:
                raise CorruptObject(piece.key, "its bytes differ from those of another piece of the same place")
            new = data[both:]
            yield piece, new
            known += new
