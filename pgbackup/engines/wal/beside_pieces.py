"""A whole segment that does not come by a stream, as archive_command pushes them, beside the pieces of streams.

A restore takes the whole segment, so it must not lie beside pieces with other bytes, on which another server's commits
rely. They are compared before it is stored; and once more after every stream was told to look again at what is stored
(fence.py): a piece that was confirmed before a stream was told is listed then, and who puts one later has seen the
segment.
"""

from __future__ import annotations

from collections.abc import Callable

from pgbackup.core.lsn import SegmentName
from pgbackup.engines.wal.fence import Fence
from pgbackup.engines.wal.pieces import read_piece
from pgbackup.errors import OTHER_WRITER_HINT, ObjectMissing, StorageError, WrongCluster
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec
from pgbackup.storage.base import ObjectStore

_TRIES = 5


class PiecesBeside:
    """The stored pieces of one segment, compared with ours; ``read`` returns our bytes ``[first, end)``."""

    def __init__(
        self, store: ObjectStore, codec: Codec, segment: SegmentName, read: Callable[[int, int], bytes]
    ) -> None:
        self._store = store
        self._codec = codec
        self._segment = segment
        self._read = read
        self._same: set[str] = set()

    def compare(self) -> None:
        """Raises WrongCluster when a piece holds other bytes than ours."""
        for _ in range(_TRIES):
            try:
                self._compare_listed()
            except ObjectMissing:
                # A stream merges pieces, and removes them because it has compared them with the whole.
                continue
            return
        raise StorageError(
            f"the pieces of {self._segment} change while they are compared", hint="Postgres will try again."
        )

    def compare_again(self) -> None:
        """Call when ours is stored, before that is called a success."""
        Fence(self._store, self._segment.timeline).put_up()
        self.compare()

    def _compare_listed(self) -> None:
        for info in self._store.list(keys.pieces_folder(str(self._segment))):
            name = keys.parse_piece(info.key)
            if name is None or name.key in self._same:
                continue
            if read_piece(self._store, self._codec, name) != self._read(name.first, name.end):
                raise WrongCluster(
                    f"the stored piece {name.key} holds other bytes than segment {self._segment} of this server",
                    hint=OTHER_WRITER_HINT,
                )
            self._same.add(name.key)
