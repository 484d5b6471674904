"""The JSON documents beside a backup: sentinel, metadata.json, files_metadata.json, and our cluster.json.

Field names, types and traps are WAL-G's (its documents of version 2): LSNs are JSON integers, times are RFC 3339 in
UTC with microseconds and ``Z``. What only we know goes into UserData under "pgbackup", which WAL-G keeps and ignores.
Reading is tolerant of every writer (WAL-G since 0.2, WAL-E 1.x) and hostile to everything else: CorruptObject.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pgbackup.core.backup import Tablespace
from pgbackup.core.lsn import DEFAULT_SEGMENT_BYTES, Lsn, check_segment_bytes
from pgbackup.errors import CorruptObject
from pgbackup.repository.json_object import JsonObject, parse_object
from pgbackup.repository.text_lines import iter_lines
from pgbackup.storage.base import ByteStream

__all__ = [
    "DATE_FORMAT",
    "EXTRAS_KEY",
    "PART_SIZES_KEY",
    "BackupDocuments",
    "BackupExtras",
    "ClusterDocument",
    "files_metadata",
    "format_time",
    "is_as_sealed",
    "iter_files_metadata",
    "parse_object",
    "tablespace_spec",
]

DATE_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
EXTRAS_KEY = "pgbackup"
PART_SIZES_KEY = "pgbackup_part_sizes"
SEALED_FORMAT = 2
"""From this format of our part of the documents on, the sentinel holds a checksum of itself."""
_CHECKSUM = '"sha256":"{}"'
_COMPACT = (",", ":")
_FILES_IN_CHUNK = 500
_CORRUPT_BLOCKS_SHOWN = 10
_EPOCH = datetime.fromtimestamp(0, UTC)


def format_time(moment: datetime) -> str:
    """``2026-01-02T03:04:05.678901Z``."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


@dataclass(frozen=True)
class BackupExtras:
    """What only pgbackup knows of a backup. ``settings``: non-default settings of the server that a restore may need;
    ``config_files``: paths of its configuration files; ``corrupt_files``: files with damaged pages and their blocks."""

    version: str
    segment_bytes: int = DEFAULT_SEGMENT_BYTES
    label: str = ""
    wal_tail: bool = False
    standby: bool = False
    manifest: str | None = None
    corrupt_files: Mapping[str, list[int]] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    config_files: Mapping[str, str] = field(default_factory=dict)
    tablespaces: Mapping[str, str] = field(default_factory=dict)
    format: int = SEALED_FORMAT


@dataclass(frozen=True)
class BackupDocuments:
    """Everything that the sentinel and metadata.json of a backup of ours say."""

    timeline: int
    start_lsn: Lsn
    finish_lsn: Lsn
    pg_version: int
    system_identifier: int
    started: datetime
    finished: datetime
    hostname: str
    data_directory: str
    raw_bytes: int
    stored_bytes: int
    permanent: bool
    tablespaces: tuple[Tablespace, ...]
    extras: BackupExtras

    def sentinel(self) -> bytes:
        """The seal: written last."""
        document = {
            "LSN": int(self.start_lsn),
            "PgVersion": self.pg_version,
            "FinishLSN": int(self.finish_lsn),
            "SystemIdentifier": self.system_identifier,
            "UncompressedSize": self.raw_bytes,
            "CompressedSize": self.stored_bytes,
            "Spec": tablespace_spec(self.data_directory, self.tablespaces),
            # The checksum comes first, where nothing that was named by somebody else can look like it.
            "UserData": {EXTRAS_KEY: {"sha256": "", **asdict(self.extras)}},
            "Version": 2,
            "StartTime": format_time(self.started),
            "FinishTime": format_time(self.finished),
            "DateFmt": DATE_FORMAT,
            "Hostname": self.hostname,
            "DataDir": self.data_directory,
            "IsPermanent": self.permanent,
        }
        text = json.dumps(document, separators=_COMPACT)
        checksum = hashlib.sha256(text.encode()).hexdigest()
        return text.replace(_CHECKSUM.format(""), _CHECKSUM.format(checksum), 1).encode()

    def metadata(self, part_sizes: Sequence[int] = ()) -> bytes:
        """metadata.json: where WAL-G looks for permanence, times and LSNs.

        ``part_sizes``: the stored bytes of the numbered parts, in order, so that one that was cut can be named.
        """
        document: dict[str, Any] = {
            "start_time": format_time(self.started),
            "finish_time": format_time(self.finished),
            "date_fmt": DATE_FORMAT,
            "hostname": self.hostname,
            "data_dir": self.data_directory,
            "pg_version": self.pg_version,
            "start_lsn": int(self.start_lsn),
            "finish_lsn": int(self.finish_lsn),
            "is_permanent": self.permanent,
            "system_identifier": self.system_identifier,
            "uncompressed_size": self.raw_bytes,
            "compressed_size": self.stored_bytes,
            "user_data": {EXTRAS_KEY: asdict(self.extras)},
        }
        if part_sizes:
            document[PART_SIZES_KEY] = list(part_sizes)
        return json.dumps(document, separators=_COMPACT).encode()


def is_as_sealed(sentinel: bytes, checksum: str) -> bool:
    """Whether a sentinel of ours has the bytes that it was written with; ``checksum``: the one that it holds."""
    without = sentinel.replace(_CHECKSUM.format(checksum).encode(), _CHECKSUM.format("").encode(), 1)
    return bool(checksum) and hashlib.sha256(without).hexdigest() == checksum


def tablespace_spec(data_directory: str, tablespaces: Iterable[Tablespace]) -> dict[str, Any]:
    """WAL-G's Spec: names are text, each with its own entry; base_prefix without a trailing slash."""
    spaces = list(tablespaces)
    spec: dict[str, Any] = {
        "base_prefix": data_directory.rstrip("/") or "/",
        "tablespaces": [str(s.oid) for s in spaces],
    }
    for space in spaces:
        spec[str(space.oid)] = {"loc": space.location.rstrip("/"), "link": f"pg_tblspc/{space.oid}"}
    return spec


def files_metadata(files: Iterable[tuple[str, float]], corrupt_blocks: Mapping[str, list[int]]) -> Iterator[bytes]:
    """files_metadata.json in chunks: (member name, mtime in seconds) of every file, names exactly as in the tars.

    The list is WAL-G's allow-list at restore, so it is complete or not there at all. One file a line, so that a reader
    of ours needs no more memory than this writer does.
    """
    chunk = ['{"Files":{']
    separator = "\n"
    for name, mtime in files:
        # Bytes that are not UTF-8: Go's decoder would replace them too, so no such name can match.
        text = json.dumps(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        damage = _corrupt_blocks(corrupt_blocks[name]) if name in corrupt_blocks else ""
        chunk.append(
            f'{separator}{text}:{{"IsIncremented":false,"IsSkipped":false,"MTime":"{_file_time(mtime)}",'
            f'{damage}"UpdatesCount":0}}'
        )
        separator = ",\n"
        if len(chunk) >= _FILES_IN_CHUNK:
            yield "".join(chunk).encode()
            chunk = []
    yield "".join((*chunk, "\n}}")).encode()


def iter_files_metadata(key: str, stream: ByteStream) -> Iterator[str]:
    """The names in a files_metadata.json of ours, as a stream. Raises CorruptObject for any other layout."""
    lines = iter_lines(key, stream)
    if next(lines, "") != '{"Files":{':
        raise CorruptObject(key, "it does not begin with the list of files")
    for line in lines:
        if line == "}}":
            break
        fields = parse_object(key, f"{{{line.removesuffix(',')}}}".encode())
        if len(fields) != 1:
            raise CorruptObject(key, "it has a line that is not one file")
        yield from fields
    else:
        raise CorruptObject(key, "it is cut short")
    if next(lines, None) is not None:
        raise CorruptObject(key, "it goes on after its end")


def _corrupt_blocks(blocks: list[int]) -> str:
    some = json.dumps(blocks[:_CORRUPT_BLOCKS_SHOWN], separators=_COMPACT)
    return f'"CorruptBlocks":{{"CorruptBlocksCount":{len(blocks)},"SomeCorruptBlocks":{some}}},'


def _file_time(seconds: float) -> str:
    """The time of a file; one that no calendar has is as good as none."""
    try:
        return format_time(_EPOCH + timedelta(seconds=seconds))
    except (OverflowError, ValueError):
        return format_time(_EPOCH)


@dataclass(frozen=True, slots=True)
class ClusterDocument:
    """cluster.json: which cluster a prefix belongs to. ``pg_version`` as server_version_num, at the first claim."""

    system_identifier: int
    segment_bytes: int
    pg_version: int

    def encode(self) -> bytes:
        return json.dumps(asdict(self) | {"format": 1}, separators=_COMPACT).encode()

    @classmethod
    def decode(cls, key: str, data: bytes) -> ClusterDocument:
        """Raises CorruptObject."""
        document = JsonObject.parse(key, data)
        system, size = document.integer("system_identifier"), document.integer("segment_bytes")
        if system is None or size is None:
            raise CorruptObject(key, "it does not name a cluster")
        try:
            return cls(system, check_segment_bytes(size), document.integer("pg_version") or 0)
        except ValueError as exc:
            raise CorruptObject(key, str(exc)) from exc
