"""WAL shipping by ourselves: compressed, encrypted, put if absent."""

from __future__ import annotations

from collections.abc import Callable

from pgbackup.engines.wal.events import WakeableQueue
from pgbackup.engines.wal.upload_stats import UploadStats
from pgbackup.engines.wal.uploads import WalUploads
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec
from pgbackup.storage.base import ObjectStore


class NativeShipping:
    """Implements the WalShipping port; ``concurrency``: segments on their way to the store at once."""

    ships_pieces = True

    def __init__(self, store: ObjectStore, codec: Codec, *, concurrency: int) -> None:
        self._store = store
        self._codec = codec
        self._concurrency = concurrency

    def open_uploads(
        self, events: WakeableQueue, stats: UploadStats, before_confirming: Callable[[], None]
    ) -> WalUploads:
        return WalUploads(
            self._store, self._codec, events, before_confirming, concurrency=self._concurrency, stats=stats
        )

    def put_history(self, name: str, content: bytes) -> bytes | None:
        key = keys.wal(name, self._codec.extension)
        if self._store.put_if_absent(key, self._codec.encode(content)):
            return None
        stored = self._codec.decode(key, self._store.get(key))
        return None if stored == content else stored
