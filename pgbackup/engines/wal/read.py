"""Read WAL out of the repository: whole segments, history files, tails of open segments, segments cut at a fork.

Everything is streamed (a segment may have 1 GiB) and checked: the size, the first page's address, segment size and
cluster, and whatever the compression and the encryption prove. Who wrote the archive decides the extension of a name;
ours is asked for first, then one listing shows what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain

from pgbackup.core.lsn import SegmentName, check_segment_bytes
from pgbackup.core.recovery_path import WalFile
from pgbackup.core.timeline import MAX_HISTORY_BYTES, history_name
from pgbackup.core.wal_page import PAGE_BYTES, parse_first_page, segment_problem
from pgbackup.engines.wal.pieces import read_piece
from pgbackup.errors import CorruptObject, NotInArchive, ObjectMissing
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec
from pgbackup.storage.base import ByteStream, ObjectStore

BLOCK_BYTES = 1 << 20
_TRIES = 5


class WalReader:
    """Reads the WAL of one repository; ``system_identifier`` is the cluster that it must belong to (None: any).

    ``unproven`` becomes true once something was read for which neither compression nor encryption vouches. With
    ``checks_records`` every record of such a segment is held against its own checksum before its last block is given
    out: for those who hand segments to a server one by one, and do not look at them again. Safe for several threads.
    """

    def __init__(
        self, store: ObjectStore, codec: Codec, *, system_identifier: int | None = None, checks_records: bool = False
    ) -> None:
        self._store = store
        self._codec = codec
        self._system_identifier = system_identifier
        self._checks_records = checks_records
        self._extension = codec.extension
        self.unproven = False

    def is_there(self, name: str) -> bool:
        """Whether the repository has a WAL file of that name, asked by reading, not by a listing."""
        try:
            with self._open(name):
                return True
        except NotInArchive:
            return False

    def history(self, timeline: int) -> bytes:
        """A history file. Raises NotInArchive."""
        with self._open(history_name(timeline)) as (key, stream):
            data = _read_up_to(stream, MAX_HISTORY_BYTES + 1)
            if len(data) > MAX_HISTORY_BYTES:
                raise CorruptObject(key, "it is too large for a history file")
            return data

    def segment(self, segment: SegmentName) -> Iterator[bytes]:
        """The blocks of a whole segment, checked. Raises NotInArchive before the first, CorruptObject at any."""
        with self._open(str(segment)) as (key, stream):
            yield from self._checked(key, _blocks(stream), segment)

    def named(self, name: str) -> Iterator[bytes]:
        """The same for a segment of unknown size: its first page says how large it is."""
        with self._open(name) as (key, stream):
            blocks = _blocks(stream)
            first = next(blocks, b"")
            try:
                segment = SegmentName.parse(name, check_segment_bytes(parse_first_page(first).segment_bytes))
            except ValueError as exc:
                raise CorruptObject(key, str(exc)) from exc
            yield from self._checked(key, chain([first], blocks), segment)

    def other(self, name: str) -> Iterator[bytes]:
        """Any other WAL file (a backup's history file, a ``.partial``), unchecked. Raises NotInArchive."""
        with self._open(name) as (_, stream):
            yield from _blocks(stream)

    def tail(self, segment: SegmentName) -> Iterator[bytes]:
        """The unbroken bytes of an open segment's pieces, from its start on. Raises NotInArchive when there is none.

        A `pgbackup run` merges small pieces, and removes all of them once the segment is stored whole: what has gone
        meanwhile is looked for again under the names that are there now.
        """
        done = 0
        last: tuple[keys.PieceName, bytes] | None = None
        for tries_left in range(_TRIES, -1, -1):
            pieces = self._pieces_behind(segment, done)
            if done and not pieces and tries_left < _TRIES:
                yield from _behind(self.segment(segment), done)
                return
            if not done and (not pieces or pieces[0].first > 0):
                raise NotInArchive(f"the repository has no beginning of segment {segment}")
            try:
                for piece in pieces:
                    if piece.first > done:
                        return
                    data = self._piece(piece)
                    if done == 0 and (problem := segment_problem(data, segment, self._system_identifier)):
                        raise CorruptObject(piece.key, problem)
                    if last is not None:
                        _agree(*last, piece, data)
                    if piece.end > done:
                        yield data[done - piece.first :]
                        done = piece.end
                        last = piece, data
                return
            except ObjectMissing:
                if not tries_left:
                    raise

    def _pieces_behind(self, segment: SegmentName, done: int) -> list[keys.PieceName]:
        """The pieces that are listed now and hold anything behind offset ``done``, in order."""
        listed = self._store.list(keys.pieces_folder(str(segment)))
        names = (name for info in listed if (name := keys.parse_piece(info.key)) and name.end > done)
        return sorted(names, key=lambda piece: (piece.first, -piece.end))

    def _piece(self, piece: keys.PieceName) -> bytes:
        if not self._codec.encrypted and not keys.split_extension(piece.key)[1]:
            self._note_unproven()
        return read_piece(self._store, self._codec, piece)

    def planned(self, file: WalFile) -> Iterator[bytes]:
        """The bytes of one file of a recovery plan, ``used_bytes`` at the most.

        A tail that has meanwhile become a whole segment, or a parent's segment that is only a tail, is read as such.
        """
        if file.source == "segment":
            return self.segment(file.segment)
        first, second = (self.tail, self.segment) if file.source == "tail" else (self.segment, self.tail)
        return _limited(_first_there(first(file.segment), lambda: second(file.segment)), file.used_bytes)

    def pages(self, file: WalFile, block_bytes: int = 8 * BLOCK_BYTES) -> Iterator[tuple[int, bytes]]:
        """The same as (offset, bytes) in blocks that begin at pages."""
        offset = 0
        buffer = bytearray()
        for block in self.planned(file):
            buffer += block
            if len(buffer) >= block_bytes:
                whole = len(buffer) - len(buffer) % PAGE_BYTES
                yield offset, bytes(memoryview(buffer)[:whole])
                del buffer[:whole]
                offset += whole
        if buffer:
            yield offset, bytes(buffer)

    def key_of(self, file: WalFile) -> str:
        """The object, or the folder of pieces, behind a file, for people."""
        name = str(file.segment)
        return keys.pieces_folder(name) if file.source == "tail" else keys.wal(name, self._extension)

    def _checked(self, key: str, blocks: Iterable[bytes], segment: SegmentName) -> Iterator[bytes]:
        size = 0
        check: Callable[[bytes], None] = _nothing
        for block in blocks:
            if size == 0:
                if problem := segment_problem(block, segment, self._system_identifier):
                    raise CorruptObject(key, problem)
                # With the first block it is known whether anything vouches for the others.
                if self.unproven and self._checks_records:
                    check = _records_check(key, segment)
            size += len(block)
            if size > segment.segment_bytes:
                break
            check(block)
            yield block
        if size != segment.segment_bytes:
            raise CorruptObject(key, f"it holds {size} bytes instead of {segment.segment_bytes}")

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[str, ByteStream]]:
        with ExitStack() as stack:
            key, source = self._find(name, stack)
            yield key, stack.enter_context(self._codec.open(key, source, on_unproven=self._note_unproven))

    def _note_unproven(self) -> None:
        self.unproven = True

    def _find(self, name: str, stack: ExitStack) -> tuple[str, ByteStream]:
        key = keys.wal(name, self._extension)
        try:
            return key, stack.enter_context(self._store.open_read(key))
        except ObjectMissing:
            pass
        for info in self._store.list(keys.WAL + name):
            stem, extension = keys.wal_file(info.key)
            if stem == name:
                try:
                    source = stack.enter_context(self._store.open_read(info.key))
                except ObjectMissing:
                    continue
                self._extension = extension
                return info.key, source
        raise NotInArchive(f"the repository has no {name}")


def _blocks(stream: ByteStream) -> Iterator[bytes]:
    """The stream in blocks; the first one is large enough for a page header."""
    first = _read_up_to(stream, PAGE_BYTES)
    if first:
        yield first
    while block := stream.read(BLOCK_BYTES):
        yield block


def _read_up_to(stream: ByteStream, size: int) -> bytes:
    parts: list[bytes] = []
    while size and (block := stream.read(size)):
        parts.append(block)
        size -= len(block)
    return b"".join(parts)


def _nothing(_: bytes) -> None: ...


def _records_check(key: str, segment: SegmentName) -> Callable[[bytes], None]:
    """To be called with the blocks of a whole segment: raises CorruptObject for a record that the server did not write
    so."""
    # Only where it is needed: `wal-fetch` is started anew for each segment.
    from pgbackup.engines.wal.records_check import RecordsCheck

    records = RecordsCheck()
    records.begin(segment)

    def check(block: bytes) -> None:
        try:
            records.feed(block)
        except ValueError as exc:
            raise CorruptObject(key, str(exc)) from exc

    return check


def _agree(older: keys.PieceName, known: bytes, newer: keys.PieceName, data: bytes) -> None:
    """Two pieces that overlap must hold the same bytes there. Raises CorruptObject."""
    begin, end = max(older.first, newer.first), min(older.end, newer.end)
    if begin < end and known[begin - older.first : end - older.first] != data[begin - newer.first : end - newer.first]:
        raise CorruptObject(
            newer.key,
            f"bytes {begin} to {end} of the segment are others than in {older.key}",
            hint="Two servers wrote here: find out which piece is of the branch that you want, and remove the other.",
        )


def _first_there(blocks: Iterator[bytes], other: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    try:
        first = next(blocks, b"")
    except NotInArchive:
        yield from other()
        return
    yield first
    yield from blocks


def _behind(blocks: Iterator[bytes], offset: int) -> Iterator[bytes]:
    """The bytes from ``offset`` on."""
    for block in blocks:
        if len(block) > offset:
            yield block[offset:]
        offset = max(0, offset - len(block))


def _limited(blocks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """The first ``limit`` bytes. The rest is read all the same: what is wrong there may prove that all of it is."""
    left = limit
    for block in blocks:
        if left:
            yield block[:left]
        left = max(0, left - len(block))
