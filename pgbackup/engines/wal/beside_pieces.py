"""A whole segment that did not come by a stream, as archive_command pushes them, beside the pieces of a stream.

A restore takes the whole segment, so it must not lie beside pieces with other bytes that another server's commits
rely on. Both sides are made to see each other: first the segment is stored, then every stream is told to look again at
what is stored (fence.py), then the pieces are listed. One that a stream confirmed before it was told is listed here; a
stream that puts one later has seen the segment.
"""

from __future__ import annotations

from pgbackup.core.lsn import SegmentName
from pgbackup.engines.wal.fence import Fence
from pgbackup.engines.wal.pieces import compare_with_whole
from pgbackup.errors import ObjectMissing, StorageError
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, is_readable
from pgbackup.storage.base import ObjectStore

_TRIES = 5


def compare_with_pieces(store: ObjectStore, codec: Codec, whole_key: str, segment: SegmentName, *, new: bool) -> None:
    """Call when a whole segment is stored, before that is called a success. ``new``: it was not there before.

    Raises WrongCluster when pieces hold other bytes.
    """
    if new:
        Fence(store, segment.timeline).put_up()
    for _ in range(_TRIES):
        infos = store.list(keys.pieces_folder(str(segment)))
        names = [name for info in infos if (name := keys.parse_piece(info.key))]
        if not names or not is_readable(keys.split_extension(whole_key)[1]):
            return
        try:
            compare_with_whole(store, codec, whole_key, names)
        except ObjectMissing:
            # A stream merges them, or removes them because it has compared them with the whole.
            continue
        return
    raise StorageError(f"the pieces of {segment} change while they are compared", hint="Postgres will try again.")
