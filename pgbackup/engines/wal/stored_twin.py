"""The open segment beside the whole one that the repository holds already: compared byte by byte as it grows.

Where a segment is stored whole and the server is still within it, the server is a standby that lags, or it was set
back to an older copy of its disk. In the second case what it writes now can never be recovered, for a restore takes the
whole segment: so no pieces are put beside it, and nothing is confirmed but what is in it.
"""

from __future__ import annotations

from contextlib import ExitStack

from pgbackup.core.lsn import SegmentName
from pgbackup.errors import OTHER_WRITER_HINT, WrongCluster
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, is_readable
from pgbackup.repository.wal_objects import stored_keys
from pgbackup.storage.base import ByteStream, ObjectStore


class StoredTwin:
    """One stored segment, read in step with the one that is received. Owned by the thread that owns the stream."""

    def __init__(self, store: ObjectStore, codec: Codec, segment: SegmentName) -> None:
        """Raises ObjectMissing when it has gone meanwhile, and what reading raises."""
        self._segment = segment
        self._stack = ExitStack()
        self._streams: list[tuple[str, ByteStream]] = []
        for key in stored_keys(store, str(segment)):
            if is_readable(keys.split_extension(key)[1]):
                source = self._stack.enter_context(store.open_read(key))
                self._streams.append((key, self._stack.enter_context(codec.open(key, source))))

    def holds(self, block: bytes) -> bool:
        """Whether the next bytes are known to be stored. Raises WrongCluster when other bytes are.

        False where nothing stored can be read: then only the whole of ours will tell.
        """
        for key, stream in self._streams:
            position = 0
            while position < len(block):
                data = stream.read(len(block) - position)
                if not data or data != block[position : position + len(data)]:
                    raise WrongCluster(
                        f"the repository holds another segment under {key}",
                        detail=f"the server is within {self._segment}, and writes other bytes there",
                        hint=OTHER_WRITER_HINT,
                    )
                position += len(data)
        return bool(self._streams)

    def close(self) -> None:
        self._stack.close()
