"""Ship one WAL file: what ``archive_command = 'pgbackup wal-push %p'`` does, for people who keep archive_command.

Success means durable, so Postgres may recycle the file. Nothing is overwritten: the same content there already, under
whatever compression, is success (Postgres archives a file again after a crash); other content is an error that names
both. A segment must be what its name says, of the cluster that the prefix belongs to, before anything is written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pgbackup.core.lsn import SegmentName, check_segment_bytes, is_segment_name
from pgbackup.core.timeline import parse_history_name
from pgbackup.core.wal_page import PAGE_BYTES, FirstPage, parse_first_page, segment_problem
from pgbackup.engines.wal.beside_pieces import PiecesBeside
from pgbackup.errors import OTHER_WRITER_HINT, ConfigError, ObjectMissing, StorageError, WrongCluster
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import claim_prefix
from pgbackup.repository.codec import Codec, Compression
from pgbackup.repository.documents import ClusterDocument
from pgbackup.repository.key_check import check_key
from pgbackup.repository.wal_objects import stored_keys
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.stream_writer import ObjectWriter

_PARTIAL = ".partial"
_BACKUP_HISTORY = re.compile(r"[0-9A-F]{24}\.[0-9A-F]{8}\.backup")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PushResult:
    """``stored``: this call stored it; otherwise the same content was there already, as ``key``."""

    name: str
    key: str
    stored: bool
    raw_bytes: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class WalFileToPush:
    """A file that Postgres wants archived; ``page`` is a segment's first page, None for files that are none."""

    path: Path
    size_bytes: int
    page: FirstPage | None

    @property
    def name(self) -> str:
        return self.path.name

    def pieces_beside(self, store: ObjectStore, codec: Codec) -> PiecesBeside | None:
        """The stored pieces of this segment; None for anything but a whole segment."""
        if self.page is None or self.name.endswith(_PARTIAL):
            return None
        return PiecesBeside(store, codec, SegmentName.parse(self.name, self.page.segment_bytes), self._read)

    def _read(self, first: int, end: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(first)
                return file.read(end - first)
        except OSError as exc:
            raise self._unreadable(exc) from exc

    def _unreadable(self, exc: OSError) -> ConfigError:
        return ConfigError(f"cannot read {self.path}", detail=exc.strerror or str(exc))

    @classmethod
    def look_at(cls, path: Path) -> WalFileToPush:
        """Raises ConfigError for a path that is not a WAL file, WrongCluster for a segment that is not its name's."""
        name = path.name
        segment = name.removesuffix(_PARTIAL)
        is_segment = is_segment_name(segment)
        if not is_segment and parse_history_name(name) is None and not _BACKUP_HISTORY.fullmatch(name):
            raise ConfigError(
                f"{path} is not a WAL file",
                hint="The path is what archive_command puts in for %p: archive_command = 'pgbackup wal-push %p'.",
            )
        try:
            with path.open("rb") as file:
                begin = file.read(PAGE_BYTES)
                size = file.seek(0, os.SEEK_END)
        except OSError as exc:
            raise ConfigError(f"cannot read {path}", detail=exc.strerror or str(exc)) from exc
        return cls(path, size, _checked_page(path, segment, begin, size) if is_segment else None)

    def blocks(self) -> Iterator[bytes]:
        """The content. Raises ConfigError when it cannot be read, or is longer or shorter than it was."""
        done = 0
        try:
            with self.path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    done += len(block)
                    yield block
        except OSError as exc:
            raise self._unreadable(exc) from exc
        if done != self.size_bytes:
            raise ConfigError(f"{self.path} changed while it was read", detail=f"{self.size_bytes} to {done} bytes")


def push_wal_file(
    store: ObjectStore, codec: Codec, path: Path | WalFileToPush, *, segment_bytes: int | None = None
) -> PushResult:
    """Make a segment, ``.partial``, history or ``.backup`` file durable. ``path`` may be relative.

    ``segment_bytes``: the cluster's segment size where it is known; otherwise the prefix's and the file's own count.
    Raises WrongCluster when the file is not of the prefix's cluster or other content is there, StorageError otherwise.
    """
    file = path if isinstance(path, WalFileToPush) else WalFileToPush.look_at(path)
    if file.page is not None and segment_bytes not in (None, file.page.segment_bytes):
        size = file.page.segment_bytes
        raise WrongCluster(f"{file.path} was written with segments of {size} bytes instead of {segment_bytes}")
    claim_for(store, codec, file)
    there = stored_keys(store, file.name)
    for key in there:
        _same_content(store, codec, key, file)
    beside = file.pieces_beside(store, codec)
    if beside is not None:
        beside.compare()
    if there:
        return PushResult(file.name, there[0], False, file.size_bytes, 0)
    result = _store(store, _always_compressed(codec) if file.name.endswith(_PARTIAL) else codec, file)
    if beside is not None:
        beside.compare_again()
    return result


def claim_for(store: ObjectStore, codec: Codec, file: WalFileToPush) -> None:
    """See that the prefix belongs to the file's cluster and to our key. Raises WrongCluster, ConfigError."""
    if file.page is None:
        check_key(store, codec)
        return
    size, version = file.page.segment_bytes, (file.page.pg_major or 0) * 10000
    claim_prefix(store, ClusterDocument(file.page.system_identifier, size, version), codec)


def _store(store: ObjectStore, codec: Codec, file: WalFileToPush) -> PushResult:
    key = keys.wal(file.name, codec.extension)
    encoder = codec.encoder()
    with ObjectWriter(store, key) as writer:
        for block in file.blocks():
            if data := encoder.write(block):
                writer.write(data)
        writer.write(encoder.finish())
        stored = writer.finish()
    if not stored:
        _same_content(store, codec, key, file)
    return PushResult(file.name, key, stored, file.size_bytes, writer.stored_bytes if stored else 0)


def _same_content(store: ObjectStore, codec: Codec, key: str, file: WalFileToPush) -> None:
    """The stored object must hold what the file holds. Raises WrongCluster."""
    try:
        with store.open_read(key) as source:
            stream = codec.open(key, source)
            for block in file.blocks():
                position = 0
                while position < len(block):
                    data = stream.read(len(block) - position)
                    if not data or data != block[position : position + len(data)]:
                        raise _differs(key, file)
                    position += len(data)
            if stream.read(1):
                raise _differs(key, file)
    except ObjectMissing as exc:
        raise StorageError(f"object {key} was removed while it was read", hint="Postgres will try again.") from exc


def _differs(key: str, file: WalFileToPush) -> WrongCluster:
    return WrongCluster(
        f"the repository holds other content under {key} than {file.path} has",
        hint=OTHER_WRITER_HINT,
    )


def _always_compressed(codec: Codec) -> Codec:
    """A bare ``<segment>.partial`` would look like the segment itself to WAL-G."""
    return codec if codec.extension else codec.with_compression(Compression("zstd", 1))


def _checked_page(path: Path, name: str, begin: bytes, size: int) -> FirstPage:
    """The header of a segment's first page, when it fits the segment's name and size. Raises WrongCluster."""
    try:
        page = parse_first_page(begin)
        segment = SegmentName.parse(name, check_segment_bytes(page.segment_bytes))
    except ValueError as exc:
        raise WrongCluster(f"{path} is not a WAL segment", detail=str(exc)) from exc
    if size != segment.segment_bytes:
        raise WrongCluster(f"{path} has {size} bytes", detail=f"its header says {segment.segment_bytes}")
    if problem := segment_problem(begin, segment, page.system_identifier):
        raise WrongCluster(f"{path} is not the segment of its name", detail=problem)
    return page
