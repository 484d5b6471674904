"""The stored pieces of one open segment: put, checked against other writers, merged, removed.

Pieces are immutable and put if absent. That two writers that diverge inside one segment do not both confirm is the
fence's work (fence.py). What a writer that was fenced off had on its way may still arrive: every few seconds in which
pieces are put the segment's objects are listed, and a piece that we neither wrote nor compared, or the whole segment
while it is still open for us, ends the session, whose next one compares it.

Many small pieces (a commit each, with a flush interval of 0) are merged: the merged piece is put first, and only when
it is durable are the pieces that it repeats removed, so the stored bytes never shrink. Sizes double from merge to
merge, as in a binary counter; that bounds the number of small pieces to MERGE_COUNT plus a few, and the bytes kept for
merging to those of as many small pieces.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pgbackup.core.lsn import SegmentName
from pgbackup.engines.wal.segment import PIECE_BYTES, Piece, StoredPiece
from pgbackup.errors import OTHER_WRITER_HINT, CorruptObject, ObjectMissing, PgbackupError, WrongCluster
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.tidying import tidy

MERGE_COUNT = 16
"""How many pieces lie there before some are merged: who restores reads each of them."""
_SMALL_BYTES = PIECE_BYTES // MERGE_COUNT
LOOK_SECONDS = 10.0
_LOADERS = 4
_LOAD_TRIES = 5


class PiecesChanged(PgbackupError):
    """Somebody else wrote pieces of this segment: receive it again and compare."""

    retryable = True


def load_stored(store: ObjectStore, codec: Codec, segment: SegmentName) -> list[StoredPiece]:
    """Every stored piece of a segment with the CRC of its bytes. Raises CorruptObject for a damaged one.

    Another process may still be merging them: what has gone since the listing is looked for under its new name.
    """
    for _ in range(_LOAD_TRIES):
        try:
            return _load_listed(store, codec, segment)
        except ObjectMissing:
            continue
    return _load_listed(store, codec, segment)


def _load_listed(store: ObjectStore, codec: Codec, segment: SegmentName) -> list[StoredPiece]:
    names = [name for info in store.list(keys.pieces_folder(str(segment))) if (name := keys.parse_piece(info.key))]

    def load(name: keys.PieceName) -> StoredPiece:
        return StoredPiece(name.key, name.first, name.end, zlib.crc32(read_piece(store, codec, name)))

    with ThreadPoolExecutor(_LOADERS, thread_name_prefix="piece-load") as pool:
        return list(pool.map(load, names))


def read_piece(store: ObjectStore, codec: Codec, name: keys.PieceName) -> bytes:
    """The bytes of one piece. Raises CorruptObject when they are not as many as its name says."""
    data = codec.decode(name.key, store.get(name.key), limit=name.end - name.first)
    if len(data) != name.end - name.first:
        raise CorruptObject(name.key, f"it holds {len(data)} bytes instead of {name.end - name.first}")
    return data


class PieceStore:
    """The pieces of one segment, as this process knows them. Thread-safe.

    A name that we are about to put is known, so that a listing does not take it for another writer's; only when the
    object is ours, or was compared, is it the same.
    """

    def __init__(
        self,
        store: ObjectStore,
        codec: Codec,
        segment: SegmentName,
        known: Iterable[str] = (),
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._store = store
        self._codec = codec
        self._segment = str(segment)
        self._lock = threading.Lock()
        self._merging = threading.Lock()
        self._known: set[str] = set(known)
        self._same: set[str] = set(known)
        self._mergeable: list[Piece] = []
        self._look_seconds = look_seconds
        self._looked = time.monotonic()
        self._is_open = True

    def expect_whole(self) -> None:
        """From here on the whole segment may be there: ours, or another's that will be compared with ours."""
        with self._lock:
            self._is_open = False

    def put(self, piece: Piece) -> int:
        """Make a piece durable. Returns the bytes stored, 0 if it was there.

        Raises WrongCluster when other bytes have its name, PiecesChanged when it was removed while it was compared.
        """
        stored_bytes = self._put(piece)
        with self._lock:
            self._remember(piece)
        return stored_bytes

    def _put(self, piece: Piece) -> int:
        key, data = self._key(piece), b"".join(piece.blocks)
        with self._lock:
            self._known.add(key)
        encoded = self._codec.encode(data)
        if self._store.put_if_absent(key, encoded):
            self._is_ours(key)
            return len(encoded)
        try:
            stored = self._store.get(key)
        except ObjectMissing as gone:
            raise PiecesChanged(f"another writer removed {key} while it was compared") from gone
        if self._codec.decode(key, stored, limit=len(data)) != data:
            raise WrongCluster(
                f"the stored piece {key} holds other bytes",
                hint=OTHER_WRITER_HINT,
            )
        self._is_ours(key)
        return 0

    def _is_ours(self, key: str) -> None:
        with self._lock:
            self._same.add(key)

    def _remember(self, piece: Piece) -> None:
        """Keep the bytes of small pieces, which may be merged; a large one ends what can be merged with it."""
        if piece.end - piece.first > _SMALL_BYTES:
            self._mergeable.clear()
        else:
            self._mergeable.append(piece)

    def _look_for_others(self) -> None:
        listed = {info.key for info in self._store.list(keys.WAL + self._segment)}
        with self._lock:
            wholes = {key for key in listed if keys.wal_file(key)[0] == self._segment} if self._is_open else set()
            others = sorted({key for key in listed - self._known if keys.parse_piece(key)} | wholes)
        if others:
            raise PiecesChanged(f"another writer stored {others[0]}")

    def tidy_up(self) -> None:
        """Merge the newest pieces when there are many of them, and look for others' once in a while; one call at a time
        is enough.

        Raises PiecesChanged when an unknown piece is there.
        """
        if self._merging.acquire(blocking=False):
            try:
                if time.monotonic() - self._looked >= self._look_seconds:
                    self._look_for_others()
                    self._looked = time.monotonic()
                self._merge()
            finally:
                self._merging.release()

    def _merge(self) -> None:
        with self._lock:
            chosen = choose_merge([piece.end - piece.first for piece in self._mergeable])
            run = self._mergeable[chosen.start : chosen.stop] if chosen else []
        if not run:
            return
        data = b"".join(block for piece in run for block in piece.blocks)
        merged = Piece(run[0].first, run[-1].end, (data,))
        self._put(merged)
        # They stay known: a listing that began before the removal may still show them.
        tidy(self._store, [self._key(piece) for piece in run])
        with self._lock:
            self._replace(run, merged)

    def _replace(self, run: list[Piece], merged: Piece) -> None:
        """In what may be merged later; where a large piece came meanwhile, none of them is there any more."""
        if run[0] not in self._mergeable:
            return
        begin = self._mergeable.index(run[0])
        end = begin + len(run)
        if merged.end - merged.first > _SMALL_BYTES:
            del self._mergeable[:end]
        else:
            self._mergeable[begin:end] = [merged]

    def _key(self, piece: Piece) -> str:
        return keys.piece(self._segment, piece.first, piece.end, self._codec.extension)

    def compare_others(self, whole_key: str) -> None:
        """The whole segment is stored: before it is confirmed, compare it with pieces that we do not know.

        Raises WrongCluster for one that differs: its bytes may have been confirmed to another server. Raises
        PiecesChanged when one goes meanwhile.
        """
        with self._lock:
            same = set(self._same)
        others = [name for name in self._listed() if name.key not in same]
        if others:
            try:
                compare_with_whole(self._store, self._codec, whole_key, others)
            except ObjectMissing as gone:
                raise PiecesChanged("another writer removed a piece while it was compared") from gone
            with self._lock:
                self._known.update(name.key for name in others)
                self._same.update(name.key for name in others)

    def remove_all(self) -> None:
        """The whole segment is durable and ours: remove what equals it, and nothing that was not compared with it."""
        with self._lock:
            same = set(self._same)
        if keys_of_pieces := [name.key for name in self._listed() if name.key in same]:
            tidy(self._store, keys_of_pieces)

    def _listed(self) -> list[keys.PieceName]:
        infos = self._store.list(keys.pieces_folder(self._segment))
        return [name for info in infos if (name := keys.parse_piece(info.key))]


def compare_with_whole(store: ObjectStore, codec: Codec, whole_key: str, pieces: Iterable[keys.PieceName]) -> None:
    """Compare pieces with the whole segment, which is streamed. Raises WrongCluster for one that differs."""
    for name in pieces:
        expected = read_piece(store, codec, name)
        crc, offset = 0, 0
        with store.open_read(whole_key) as source:
            stream = codec.open(whole_key, source)
            while offset < name.end and (block := stream.read(1 << 20)):
                begin, stop = max(name.first - offset, 0), min(name.end - offset, len(block))
                if begin < stop:
                    crc = zlib.crc32(memoryview(block)[begin:stop], crc)
                offset += len(block)
        if offset < name.end or crc != zlib.crc32(expected):
            raise WrongCluster(
                f"the stored piece {name.key} differs from the whole segment {whole_key}",
                hint="Another cluster or another branch wrote here: run `pgbackup verify`, and keep both objects.",
            )


def choose_merge(sizes: Sequence[int]) -> range | None:
    """Which pieces to merge into one, given their sizes in bytes in order; never fewer than two: the merged piece is a
    new object, and those that it repeats are removed.

    The newest run in which no piece is more than twice as large as all that follow it in the run: so a byte is merged
    again only after as many have come, and a large piece is not written again for the sake of a small one. Where there
    is no such run, every piece is more than twice as large as the next, and there cannot be many of them.
    """
    if len(sizes) < MERGE_COUNT:
        return None
    for end in range(len(sizes), 1, -1):
        begin, total = end - 1, sizes[end - 1]
        while begin and sizes[begin - 1] <= total * 2 and total + sizes[begin - 1] <= PIECE_BYTES:
            begin -= 1
            total += sizes[begin]
        if end - begin > 1:
            return range(begin, end)
    return None
