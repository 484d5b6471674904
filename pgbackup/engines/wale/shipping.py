"""WAL shipping by the tool: what "durable" means here, for segments and histories.

Invariant 1: a file is durable when ``wal-push`` returned 0 *and* the repository lists it. A tool that returns 0 and
stored nothing is a finding, and nothing is confirmed.

Invariant 4: both tools overwrite, so the repository is asked first. Where the name is there already its content is
read back, by the tool that wrote it or by our own reader, and compared: the same is success, other content is another
writer. On a disk the tools do not write atomically; an object there that cannot be read back is what a killed push
left, and is pushed again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

from pgbackup.core.lsn import is_segment_name
from pgbackup.core.stop import StopSignal
from pgbackup.core.timeline import MAX_HISTORY_BYTES
from pgbackup.engines.wal.events import WakeableQueue
from pgbackup.engines.wal.upload_stats import UploadStats
from pgbackup.engines.wale.driver import ToolDriver
from pgbackup.engines.wale.spool import Spool, SpooledFile
from pgbackup.engines.wale.uploads import ToolUploads
from pgbackup.errors import OTHER_WRITER_HINT, CorruptObject, StorageError, ToolError, WrongCluster
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, is_readable
from pgbackup.repository.wal_objects import stored_keys
from pgbackup.storage.base import ObjectInfo, ObjectStore

_SECONDS = 120.0
_SLOWEST_BYTES_PER_SECOND = 64 << 10
_LISTED_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_BLOCK_BYTES = 1 << 20
_log = logging.getLogger(__name__)


def time_for(size_bytes: int) -> float:
    """How long the tool may take for so many bytes; what takes longer hangs."""
    return _SECONDS + size_bytes / _SLOWEST_BYTES_PER_SECOND


class ToolShipping:
    """Implements the WalShipping port. ``settle`` makes a listed object durable where listing does not prove it."""

    ships_pieces = False

    def __init__(
        self,
        driver: ToolDriver,
        store: ObjectStore,
        codec: Codec,
        spool: Spool,
        *,
        concurrency: int,
        settle: Callable[[str], None] | None = None,
    ) -> None:
        self._driver = driver
        self._store = store
        self._codec = codec
        self._spool = spool
        self._concurrency = concurrency
        self._settle = settle
        self._is_atomic = settle is None

    def open_uploads(
        self, events: WakeableQueue, stats: UploadStats, before_confirming: Callable[[], None]
    ) -> ToolUploads:
        return ToolUploads(
            self._store, self._spool, self.ship, events, before_confirming, concurrency=self._concurrency, stats=stats
        )

    def put_history(self, name: str, content: bytes) -> bytes | None:
        file = self._spool.new(name)
        try:
            file.write(content)
            file.complete()
            self.ship(file, threading.Event())
        except WrongCluster:
            return self._stored_history(name)
        finally:
            file.remove()
        return None

    def ship(self, file: SpooledFile, stop: StopSignal) -> ObjectInfo | None:
        """Make a spooled file durable. Returns the object, or None when the same content was there.

        Raises WrongCluster for other content, ToolError when the tool failed or lied, and what the store raises.
        """
        for key in stored_keys(self._store, file.name):
            if self._is_same(key, file, stop):
                self._make_durable(key)
                return None
        size = str(max(file.size_bytes >> 20, 1)) if is_segment_name(file.name) else "16"
        driver = self._driver.with_env(PGDATA=str(file.folder), WALG_PG_WAL_SIZE=size)
        words = self._driver.dialect.wal_push(file.path)
        self._driver.require_key()
        driver.call(words, timeout_seconds=time_for(file.size_bytes), stop=stop)
        info = self._listed(file.name)
        if info is None:
            raise ToolError(
                f"{self._driver.dialect.name} said that {file.name} was pushed, and the repository does not list it",
                detail=f"{self._store.url} has no {keys.WAL}{file.name} with anything in it",
                hint="Nothing was confirmed to the server. See where the tool's own settings lead it.",
            )
        self._make_durable(info.key)
        return info

    def _listed(self, name: str) -> ObjectInfo | None:
        """The object of that name, which may take a moment to be listed; an empty one does not count."""
        deadline = time.monotonic() + _LISTED_SECONDS
        while True:
            for key in stored_keys(self._store, name):
                info = self._store.head(key)
                if info is not None and info.size_bytes:
                    return info
            if time.monotonic() > deadline:
                return None
            time.sleep(_LOOK_SECONDS)

    def _make_durable(self, key: str) -> None:
        if self._settle is not None:
            self._settle(key)

    # -- what is there already ------------------------------------------------------------------------------------

    def _is_same(self, key: str, file: SpooledFile, stop: StopSignal) -> bool:
        """Whether the object holds what the file holds; False for the rest of a push that was killed."""
        info = self._store.head(key)
        if info is not None and not info.size_bytes:
            _log.warning("%s is empty: it is pushed again", key)
            return False
        try:
            same = self._compare(key, file, stop)
        except (CorruptObject, ToolError) as exc:
            if self._is_atomic or stop.is_set():
                raise
            _log.warning("%s cannot be read back (%s): it is pushed again", key, exc)
            return False
        if not same:
            raise WrongCluster(
                f"the repository holds other content under {key} than the server sent", hint=OTHER_WRITER_HINT
            )
        return True

    def _compare(self, key: str, file: SpooledFile, stop: StopSignal) -> bool:
        wanted = self._driver.dialect.wal_extension
        extension = keys.split_extension(key)[1]
        if wanted in (None, extension):
            fetched = self._fetch(file, stop)
            return _holds(key, _blocks(fetched), file)
        if not is_readable(extension):
            raise StorageError(
                f"the repository holds {key}, which neither {self._driver.dialect.name} nor pgbackup can read",
                hint="Move it away, or give this server a prefix of its own.",
            )
        return _holds(key, self._decoded(key), file)

    def _fetch(self, file: SpooledFile, stop: StopSignal) -> Path:
        target = file.beside("fetched")
        driver = self._driver.with_env(PGDATA=str(file.folder), WALG_DOWNLOAD_CONCURRENCY="1")
        words = self._driver.dialect.wal_fetch(file.name, target)
        driver.call(words, timeout_seconds=time_for(file.size_bytes), stop=stop)
        if not target.is_file():
            raise ToolError(f"{self._driver.dialect.name} said that {file.name} was fetched, and wrote nothing")
        return target

    def _decoded(self, key: str) -> Generator[bytes, None, None]:
        with self._store.open_read(key) as source, self._codec.open(key, source) as stream:
            while block := stream.read(_BLOCK_BYTES):
                yield block

    def _stored_history(self, name: str) -> bytes:
        """The history that the repository holds in place of ours."""
        file = self._spool.new(name)
        try:
            file.write(b"")
            extension = self._driver.dialect.wal_extension
            for key in stored_keys(self._store, name):
                if extension in (None, keys.split_extension(key)[1]):
                    return _beginning(_blocks(self._fetch(file, threading.Event())))
                return _beginning(self._decoded(key))
        finally:
            file.remove()
        return b""


def _blocks(path: Path) -> Generator[bytes, None, None]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def _beginning(blocks: Generator[bytes, None, None]) -> bytes:
    """As much as a history may have, of whatever lies there."""
    read = b""
    with closing(blocks):
        while len(read) < MAX_HISTORY_BYTES and (block := next(blocks, b"")):
            read += block
    return read[:MAX_HISTORY_BYTES]


def _holds(key: str, stored: Generator[bytes, None, None], file: SpooledFile) -> bool:
    """Whether the content of an object is the file's, however both are cut.

    Raises CorruptObject for the beginning of a segment: that is nobody's, for a segment has one size.
    """
    wanted = _blocks(file.path)
    mine = theirs = b""
    with closing(wanted), closing(stored):
        while True:
            mine = mine or next(wanted, b"")
            theirs = theirs or next(stored, b"")
            if mine and not theirs and is_segment_name(file.name):
                raise CorruptObject(key, "it is cut short")
            if not mine or not theirs:
                return not mine and not theirs
            size = min(len(mine), len(theirs))
            if mine[:size] != theirs[:size]:
                return False
            mine, theirs = mine[size:], theirs[size:]
