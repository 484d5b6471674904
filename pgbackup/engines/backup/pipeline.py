"""From the server's tar stream to stored parts: receive and checksum, compress and encrypt, upload; a thread each.

The receiving thread splits the tar and computes every file's checksum; blocks of a megabyte go through a bounded
queue to one encoding thread, whose compressor may use more; finished multipart parts go up from a pool. Nothing
touches a disk, except the table of checksums when there are very many files.

Memory: QUEUE_BLOCKS blocks, the compressor's window and jobs, and what BackupUploads says.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass

from pgbackup.core.backup import CONTROL_FILE
from pgbackup.engines.backup.uploads import BackupUploads
from pgbackup.engines.base import ProgressSink, StopSignal
from pgbackup.errors import BackupError
from pgbackup.postgres.pg_control import CONTROL_FILE_BYTES
from pgbackup.repository import keys
from pgbackup.repository.checksum_table import ChecksumTable, FileEntry
from pgbackup.repository.codec import Codec, Encoder
from pgbackup.repository.manifest import FileChecksum
from pgbackup.repository.tar_header import Header
from pgbackup.storage.stream_writer import ObjectWriter

BLOCK_BYTES = 1 << 20
QUEUE_BLOCKS = 8
CHECKSUM_ALGORITHM = "CRC32C"
_WAIT_SECONDS = 0.5
_JOIN_SECONDS = 3.0


@dataclass(slots=True)
class _Object:
    """One object on its way; encoder and writer belong to the encoding thread, which makes the encoder when its turn
    has come: at high levels each takes tens of megabytes, so there is only one at a time."""

    key: str
    writer: ObjectWriter
    encoder: Encoder | None = None


class BackupPipeline:
    """The sink of a TarSplitter, and of the manifest. ``files`` has every file that passed, with its checksum."""

    def __init__(
        self,
        uploads: BackupUploads,
        codec: Codec,
        backup: str,
        *,
        encoder_threads: int,
        progress: ProgressSink,
        stop: StopSignal,
    ) -> None:
        self._uploads = uploads
        self._codec = codec
        self._backup = backup
        self._encoder_threads = encoder_threads
        self._progress = progress
        self._stop = stop
        self.files = ChecksumTable()
        self.raw_bytes = 0
        """Bytes of the tars before compression."""
        self.control = b""
        """The content of global/pg_control, or its beginning where it is longer than it should be."""
        self._parts = 0
        self._object: _Object | None = None
        self._blocks: list[bytes | memoryview] = []
        self._block_bytes = 0
        self._file: tuple[str, Header] | None = None
        self._checksum = FileChecksum(CHECKSUM_ALGORITHM)
        self._queue: queue.Queue[tuple[_Object, bytes | None] | None] = queue.Queue(QUEUE_BLOCKS)
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._encode_all, name="backup-encode", daemon=True)
        self._thread.start()

    # -- TarSink, called by the receiving thread ------------------------------------------------------------------

    def open_part(self, *, control: bool) -> None:
        """A new tar: the next data part, or pg_control's."""
        if control:
            self._open(keys.control_tar(self._backup, self._codec.extension))
        else:
            self._parts += 1
            self._open(keys.part(self._backup, self._parts, self._codec.extension))

    def write(self, data: bytes | memoryview) -> None:
        """Bytes of the object that is open; handed on in blocks."""
        self._blocks.append(data)
        self._block_bytes += len(data)
        if self._block_bytes >= BLOCK_BYTES:
            self.raw_bytes += self._hand_on()

    def close_part(self) -> None:
        """The tar is complete: it is finished behind the next one."""
        self.raw_bytes += self._hand_on()
        self._close()

    def begin_file(self, name: str, header: Header) -> None:
        """See TarSink."""
        self._file = name, header
        self._checksum = FileChecksum(CHECKSUM_ALGORITHM)

    def file_data(self, data: memoryview) -> None:
        """See TarSink."""
        self._checksum.update(data)
        if self._file is not None and self._file[0] == CONTROL_FILE and len(self.control) <= CONTROL_FILE_BYTES:
            self.control += data

    def end_file(self) -> None:
        """See TarSink."""
        assert self._file is not None
        name, header = self._file
        self.files.add(FileEntry(name, header.size_bytes, self._checksum.hexdigest(), header.mtime))

    # -- the manifest, and the end --------------------------------------------------------------------------------

    def open_manifest(self) -> str:
        """Begin the manifest's object; returns its key."""
        key = keys.manifest(self._backup, self._codec.extension)
        self._open(key)
        return key

    def write_manifest(self, data: memoryview) -> None:
        self._blocks.append(data)
        self._block_bytes += len(data)
        if self._block_bytes >= BLOCK_BYTES:
            self._hand_on()

    def close_manifest(self) -> None:
        self._hand_on()
        self._close()

    def finish(self) -> None:
        """Everything has come: wait until it is stored. Raises what failed, or BackupError when told to stop."""
        self._put(None)
        while self._thread.is_alive():
            self._thread.join(_WAIT_SECONDS)
            self._check()
        self._uploads.wait(self._stop)

    def abandon(self) -> bool:
        """Stop the encoding thread. Returns whether it has ended; one that waits for the store may take longer."""
        self._abandoned.set()
        self._uploads.cancel()
        self._thread.join(_JOIN_SECONDS)
        return not self._thread.is_alive()

    # -- handing on -----------------------------------------------------------------------------------------------

    def _open(self, key: str) -> None:
        self._object = _Object(key, self._uploads.open(key))

    def _close(self) -> None:
        assert self._object is not None
        self._put((self._object, None))
        self._object = None

    def _hand_on(self) -> int:
        """Queue what has been collected; returns how much that was."""
        if not self._blocks:
            return 0
        assert self._object is not None
        block = b"".join(self._blocks)
        self._blocks.clear()
        self._block_bytes = 0
        self._put((self._object, block))
        self._progress.advance(len(block))
        return len(block)

    def _put(self, item: tuple[_Object, bytes | None] | None) -> None:
        while True:
            self._check()
            try:
                self._queue.put(item, timeout=_WAIT_SECONDS)
            except queue.Full:
                continue
            return

    def _check(self) -> None:
        self._uploads.check()
        if self._stop.is_set():
            raise BackupError("the base backup was stopped")

    # -- the encoding thread --------------------------------------------------------------------------------------

    def _encode_all(self) -> None:
        try:
            while (item := self._next()) is not None:
                self._encode(*item)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the receiving thread must hear of it
            self._uploads.fail(exc)

    def _next(self) -> tuple[_Object, bytes | None] | None:
        while not self._abandoned.is_set():
            try:
                return self._queue.get(timeout=_WAIT_SECONDS)
            except queue.Empty:
                continue
        return None

    def _encode(self, target: _Object, block: bytes | None) -> None:
        if target.encoder is None:
            target.encoder = self._codec.encoder(threads=self._encoder_threads)
        data = target.encoder.write(block) if block is not None else target.encoder.finish()
        if data:
            target.writer.write(data)
        if block is None:
            target.encoder = None
            self._uploads.complete(target.key)
