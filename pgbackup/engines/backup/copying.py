"""The copy: everything that the server sends, stored, and every file checked against the server's own manifest."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pgbackup.core.backup import CONTROL_FILE
from pgbackup.count_text import counted
from pgbackup.engines.backup.passing_failure import passing_failure
from pgbackup.engines.backup.pipeline import CHECKSUM_ALGORITHM, BackupPipeline
from pgbackup.engines.backup.uploads import BackupUploads
from pgbackup.engines.base import ProgressSink, StopSignal
from pgbackup.errors import BackupError, PostgresError
from pgbackup.postgres.base_backup_stream import BackupEnd, BaseBackupStream
from pgbackup.postgres.base_backup_wire import ArchiveBegins, BackupMessage, ManifestBegins
from pgbackup.postgres.linked_places import MOVE_BACK, is_needed
from pgbackup.postgres.pg_control import parse_control_file
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec
from pgbackup.repository.documents import files_metadata
from pgbackup.repository.manifest import ManifestReader
from pgbackup.repository.tar_header import TarProblem
from pgbackup.repository.tar_split import TarSplitter, is_dropped
from pgbackup.storage.base import ObjectStore

_ENCODER_THREADS = 2
_PIECE_BYTES = 1 << 18
_SHOWN = 3
_LISTED = 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Copied:
    """A complete copy: how much it is, and every object that was stored, with its size."""

    end: BackupEnd
    files: int
    raw_bytes: int
    stored_bytes: int
    objects: dict[str, int]


class BackupCopy:
    """Copies one base backup under one name. ``run``, then ``close`` in any case."""

    def __init__(
        self,
        store: ObjectStore,
        codec: Codec,
        backup: str,
        *,
        part_bytes: int,
        concurrency: int,
        progress: ProgressSink,
        stop: StopSignal,
    ) -> None:
        self._store = store
        self._codec = codec
        self._backup = backup
        self._stop = stop
        self.uploads = BackupUploads(store, concurrency=concurrency, stop=stop)
        self._pipeline = BackupPipeline(
            self.uploads, codec, backup, encoder_threads=_encoder_threads(), progress=progress
        )
        self._splitter = TarSplitter(self._pipeline, part_bytes)

    def run(self, stream: BaseBackupStream, *, refuse_damaged_pages: bool) -> Copied:
        """Copy to the end. Raises BackupError for what must not be sealed, and what server and store raise."""
        manifest_key = self._receive(stream.messages(self._stop))
        end = stream.end()
        if end.damaged and refuse_damaged_pages:
            raise BackupError(
                f"pages are damaged in {describe_damage(end.damaged)}",
                hint="Repair the server's storage; PGBACKUP_PAGE_CHECKSUMS=mark stores such a backup with a mark.",
            )
        _check_control(self._pipeline.control)
        check_left_out(left_out(end.warned, (entry.path for entry in self._pipeline.files)))
        self._pipeline.finish()
        self._compare(manifest_key)
        tars = sum(size for key, size in self.uploads.stored.items() if key != manifest_key)
        names = files_metadata(((entry.path, entry.mtime) for entry in self._pipeline.files), end.damaged)
        self.uploads.write(keys.files_metadata(self._backup), _batched(names))
        return Copied(end, len(self._pipeline.files), self._pipeline.raw_bytes, tars, self.uploads.stored)

    @property
    def got_to(self) -> tuple[int, int]:
        """Bytes received and objects stored: what stands still is one that hangs, for the one is held up by the other.
        For any thread."""
        return self._pipeline.raw_bytes, len(self.uploads.stored)

    def close(self) -> bool:
        """Stop the threads. Returns whether nothing of an unfinished copy can arrive in the store any more."""
        quiet = self.uploads.close()
        self._pipeline.close()
        return quiet

    def _receive(self, messages: Iterator[BackupMessage]) -> str:
        """Feed what comes to the splitter, and the manifest to its object; returns the manifest's key."""
        manifest_key, in_archive = "", False
        feed = self._splitter.feed
        try:
            for message in messages:
                if isinstance(message, memoryview):
                    feed(message)
                    continue
                if in_archive:
                    self._splitter.end_archive()
                in_archive = isinstance(message, ArchiveBegins)
                if isinstance(message, ArchiveBegins):
                    self._splitter.begin_archive(message.oid)
                elif isinstance(message, ManifestBegins):
                    manifest_key = self._pipeline.open_manifest()
                    feed = self._pipeline.write_manifest
        except TarProblem as exc:
            raise PostgresError("the server's tar cannot be read", detail=str(exc)) from exc
        if not manifest_key or not self._splitter.has_control:
            raise PostgresError(f"the server sent no {CONTROL_FILE if manifest_key else 'backup manifest'}")
        self._pipeline.close_manifest()
        return manifest_key

    def _compare(self, manifest_key: str) -> None:
        """Every file of the manifest has passed with its size and checksum, and none besides.

        The manifest is read back from the store, so its object is proven readable too.
        """
        problems: list[str] = []
        known = 0
        with self._store.open_read(manifest_key) as source:
            for file in ManifestReader(manifest_key, self._codec.open(manifest_key, source)):
                if is_dropped(file.path):
                    continue
                entry = self._pipeline.files.get(file.path)
                known += entry is not None
                if entry is None:
                    problems.append(f"{file.path} was not sent")
                elif entry.size_bytes != file.size_bytes:
                    problems.append(f"{file.path} has {entry.size_bytes} bytes, not {file.size_bytes}")
                elif file.checksum_algorithm != CHECKSUM_ALGORITHM or entry.checksum != file.checksum:
                    problems.append(f"{file.path} has another checksum")
                if len(problems) >= _SHOWN:
                    break
        if not problems and known != len(self._pipeline.files):
            problems.append(
                f"it does not name {counted(len(self._pipeline.files) - known, 'file')} of those that were sent"
            )
        if problems:
            raise BackupError(
                "what was received is not what the server's manifest says",
                detail="; ".join(problems),
                hint="Start the backup again; if it happens again, check the memory of both machines.",
            )


def _check_control(content: bytes) -> None:
    """The server writes its control file in place, and may read it for us while it does (the manifest then has the
    checksum of what was read). No server starts with such a file, so such a copy is no backup. Raises BackupError."""
    try:
        parse_control_file(content)
    except ValueError as exc:
        raise passing_failure(f"the {CONTROL_FILE} that the server sent cannot be used", detail=str(exc)) from exc


def left_out(warned: Iterable[str], sent: Iterable[str]) -> list[str]:
    """What the server named in a warning, and of which no file was sent: a link, a socket, a device."""
    found = set(warned)
    for path in sent if found else ():
        above = path
        while above:
            found.discard(above)
            above = above.rpartition("/")[0]
    return sorted(found)


def check_left_out(paths: list[str]) -> None:
    """Nobody misses a socket; without a database's directory, which somebody put on another disk by a link, the backup
    would restore a cluster that lacks it. Raises BackupError for what a cluster cannot do without."""
    lost = [path for path in paths if is_needed(path)]
    if lost:
        raise BackupError(
            f"the server leaves {', '.join(lost[:_SHOWN])} out of every base backup: no file, but a link",
            detail="what lies behind it would be missing after a restore",
            hint=MOVE_BACK,
        )
    shown = [path for path in paths if not path.rpartition("/")[2].startswith(".s.PGSQL.")]
    if shown:
        _log.warning("the server left out of the backup what is no file, or a link: %s", ", ".join(shown[:_LISTED]))


def describe_damage(damaged: dict[str, list[int]]) -> str:
    """Files and blocks, for people."""
    shown = [
        f"{path} (block {', '.join(map(str, blocks[:_SHOWN]))})" if blocks else path
        for path, blocks in sorted(damaged.items())[:_SHOWN]
    ]
    more = len(damaged) - len(shown)
    return ", ".join(shown) + (f" and {counted(more, 'more file')}" if more > 0 else "")


def _encoder_threads() -> int:
    """Two compress beside the thread that feeds them; with one processor that would only cost."""
    return _ENCODER_THREADS if len(os.sched_getaffinity(0)) > 1 else 0


def _batched(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Many small pieces as few larger ones."""
    batch: list[bytes] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= _PIECE_BYTES:
            yield b"".join(batch)
            batch, size = [], 0
    yield b"".join(batch)
