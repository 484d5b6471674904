"""From the server's tar stream to stored parts: receive and checksum, compress and encrypt, upload.

The receiving thread splits the tar, computes every file's checksum and writes to an encoder, whose compressor works in
threads of its own; what that has ready goes up in multipart parts, from a pool. Nothing touches a disk, except the
table of checksums when there are very many files.

A message of the server's is 32 KiB, and what is done for each takes a third of the time of a backup: between any two
the caches are filled with data anew, so that a Python call costs several times what a loop over it shows. Hence
``write_content`` does by itself what it might ask three methods for.

Memory: the compressor's window and jobs, and what BackupUploads says. An encoder or a store that is slow holds up the
receiving thread, and with it the server.
"""

from __future__ import annotations

from collections.abc import Callable

from pgbackup.core.backup import CONTROL_FILE
from pgbackup.engines.backup.uploads import BackupUploads
from pgbackup.engines.base import ProgressSink
from pgbackup.postgres.pg_control import CONTROL_FILE_BYTES
from pgbackup.repository import keys
from pgbackup.repository.checksum_table import ChecksumTable, FileEntry
from pgbackup.repository.codec import Codec
from pgbackup.repository.encoder import Encoder
from pgbackup.repository.manifest import FileChecksum
from pgbackup.repository.tar_header import Header
from pgbackup.storage.stream_writer import ObjectWriter

CHECKSUM_ALGORITHM = "CRC32C"
_TOLD_BYTES = 1 << 20


class BackupPipeline:
    """The sink of a TarSplitter, and of the manifest. ``files`` has every file that passed, with its checksum.

    For one thread. Every call raises what failed in the background, and BackupError when told to stop.
    """

    def __init__(
        self, uploads: BackupUploads, codec: Codec, backup: str, *, encoder_threads: int, progress: ProgressSink
    ) -> None:
        self._uploads = uploads
        self._codec = codec
        self._backup = backup
        self._encoders: Callable[[], Encoder] | None = codec.encoders(threads=encoder_threads)
        self._progress = progress
        self.files = ChecksumTable()
        self.raw_bytes = 0
        """Bytes of the tars before compression."""
        self.control = b""
        """The content of global/pg_control, or its beginning where it is longer than it should be."""
        self._parts = 0
        self._key = ""
        self._encoder: Encoder | None = None
        self._writer: ObjectWriter | None = None
        self._untold_bytes = 0
        self._file: tuple[str, Header] | None = None
        self._is_control = False
        self._checksum = FileChecksum(CHECKSUM_ALGORITHM)

    # -- TarSink --------------------------------------------------------------------------------------------------

    def open_part(self, *, control: bool) -> None:
        """A new tar: the next data part, or pg_control's."""
        if control:
            self._open(keys.control_tar(self._backup, self._codec.extension))
        else:
            self._parts += 1
            self._open(keys.part(self._backup, self._parts, self._codec.extension))

    def write(self, data: bytes | memoryview) -> None:
        """See TarSink."""
        self._encode(data)
        self.raw_bytes += len(data)

    def write_content(self, data: memoryview) -> None:
        """See TarSink."""
        self._checksum.update(data)
        if self._is_control and len(self.control) <= CONTROL_FILE_BYTES:
            self.control += data
        assert self._encoder is not None
        if stored := self._encoder.write(data):
            self._store(stored)
        size_bytes = len(data)
        self.raw_bytes += size_bytes
        self._untold_bytes += size_bytes
        if self._untold_bytes >= _TOLD_BYTES:
            self._tell()

    def close_part(self) -> None:
        """The tar is complete: its object is completed behind the next one."""
        self._close()

    def begin_file(self, name: str, header: Header) -> None:
        """See TarSink."""
        self._file = name, header
        self._is_control = name == CONTROL_FILE
        self._checksum = FileChecksum(CHECKSUM_ALGORITHM)

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
        self._encode(data)

    def close_manifest(self) -> None:
        self._close()

    def finish(self) -> None:
        """Everything has come: wait until it is stored."""
        self._uploads.wait()

    def close(self) -> None:
        """However it went. Encoders have threads, which end with them: not only when somebody looks for cycles, for a
        failure's traceback leads to this object."""
        self._encoders = self._encoder = self._writer = None
        self.files.close()

    # -- one object -----------------------------------------------------------------------------------------------

    def _open(self, key: str) -> None:
        self._key = key
        assert self._encoders is not None
        self._encoder = self._encoders()
        self._writer = self._uploads.open(key)

    def _encode(self, data: bytes | memoryview) -> None:
        assert self._encoder is not None
        if stored := self._encoder.write(data):
            self._store(stored)
        self._untold_bytes += len(data)
        if self._untold_bytes >= _TOLD_BYTES:
            self._tell()

    def _store(self, stored: bytes) -> None:
        assert self._writer is not None
        self._writer.write(stored)

    def _close(self) -> None:
        assert self._encoder is not None
        self._store(self._encoder.finish())
        self._uploads.complete(self._key)
        self._encoder = self._writer = None
        self._tell()

    def _tell(self) -> None:
        self._uploads.check()
        self._progress.advance(self._untold_bytes)
        self._untold_bytes = 0
