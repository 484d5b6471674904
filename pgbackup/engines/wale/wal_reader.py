"""WAL out of the repository through the tool: what it can read, it fetches; the rest our own reader reads.

Everything that is decided stays where it is: which file of a plan is needed, whether its size and first page are what
they must be (WalReader). Whether a name is there is for the listing to say: the tools end with the same status for
what is missing and for a network that failed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pgbackup.core.lsn import MAX_SEGMENT_BYTES, is_segment_name
from pgbackup.engines.wal.read import WalReader
from pgbackup.engines.wale.driver import ToolDriver
from pgbackup.engines.wale.shipping import time_for
from pgbackup.engines.wale.spool import Spool
from pgbackup.errors import NotInArchive, ToolError
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec
from pgbackup.repository.wal_objects import stored_keys
from pgbackup.storage.base import ByteStream, ObjectStore

_SEGMENT_SECONDS = time_for(MAX_SEGMENT_BYTES // 16)


class ToolWalReader(WalReader):
    """A WalReader that gets whole segments and histories by the tool's ``wal-fetch``."""

    def __init__(
        self, store: ObjectStore, codec: Codec, driver: ToolDriver, spool: Spool, *, system_identifier: int | None
    ) -> None:
        super().__init__(store, codec, system_identifier=system_identifier)
        self._store = store
        self._driver = driver
        self._spool = spool

    def is_there(self, name: str) -> bool:
        """Asked by reading the object that the tool would read, then by the listing."""
        extension = self._driver.dialect.wal_extension
        if extension is not None and self._store.head(keys.wal(name, extension)) is not None:
            return True
        return bool(stored_keys(self._store, name))

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[str, ByteStream]]:
        found = stored_keys(self._store, name)
        if not found:
            raise NotInArchive(f"the repository has no {name}")
        wanted = self._driver.dialect.wal_extension
        key = next((key for key in found if wanted in (None, keys.split_extension(key)[1])), None)
        if key is None:
            with super()._open(name) as opened:
                yield opened
            return
        with ExitStack() as stack:
            yield key, stack.enter_context(self._fetched(name))

    @contextmanager
    def _fetched(self, name: str) -> Iterator[ByteStream]:
        file = self._spool.new(name)
        try:
            file.write(b"")
            target = file.beside(name if is_segment_name(name) else "fetched")
            driver = self._driver.with_env(PGDATA=str(file.folder), WALG_DOWNLOAD_CONCURRENCY="1")
            words = driver.dialect.wal_fetch(name, target)
            driver.call(words, timeout_seconds=_SEGMENT_SECONDS, stop=threading.Event())
            if not target.is_file():
                raise ToolError(f"{driver.dialect.name} said that {name} was fetched, and wrote nothing")
            with target.open("rb") as stream:
                yield stream
        finally:
            file.remove()
