"""Makes a small repository by hand: a backup as our writer lays it out, its manifest as Postgres writes it, and WAL."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pgbackup.core.backup import Tablespace
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.timeline import Ancestor, TimelineHistory, history_name
from pgbackup.postgres.pg_control import crc32c
from pgbackup.repository import keys
from pgbackup.repository.catalog_watch import CatalogWatch
from pgbackup.repository.codec import Codec, Compression
from pgbackup.repository.documents import BackupDocuments, BackupExtras, ClusterDocument, files_metadata
from pgbackup.repository.manifest import FileChecksum
from pgbackup.storage.memory import MemoryStore
from tests.made_wal import SYSTEM, MadeWal

_REASON = "no recovery target specified"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ZSTD = Codec(Compression("zstd", 1))


def make_control(system_identifier: int = SYSTEM) -> bytes:
    """A pg_control of PostgreSQL 18 of which only what pgbackup reads is filled in."""
    data = bytearray(8192)
    struct.pack_into("<QIIi", data, 0, system_identifier, 1800, 202506291, 6)
    struct.pack_into("<QII", data, 40, 0x300028, 1, 1)
    struct.pack_into("<I", data, 228, 1 << 20)
    struct.pack_into("<I", data, 292, crc32c(bytes(data[:292])))
    return bytes(data)


FILES = {
    "backup_label": b"START WAL LOCATION: 0/300028 (file 000000010000000000000003)\n",
    "base/5/1259": b"\x01\x02" * 8192,
    "base/5/PG_VERSION": b"18\n",
    "base/5/empty": b"",
    "global/1262": bytes(range(256)) * 64,
    "global/pg_control": make_control(),
    "pg_tblspc/16384/PG_18_1/5/big file": b"abc" * 100_000,
    "pg_xact/0000": bytes(8192),
    "größe.txt": b"not ASCII",
}


def make_tar(files: Mapping[str, bytes], folders: tuple[str, ...] = ("base", "base/5")) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for folder in folders:
            member = tarfile.TarInfo(folder)
            member.type = tarfile.DIRTYPE
            tar.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def make_manifest(
    files: Mapping[str, bytes],
    start: Lsn = Lsn(0),
    stop: Lsn = Lsn(0),
    *,
    timeline: int = 1,
    algorithm: str = "CRC32C",
    system_identifier: int | None = None,
) -> bytes:
    """backup_manifest, byte for byte as Postgres prints it (version 2 when a system identifier is given)."""
    head = f'{{ "PostgreSQL-Backup-Manifest-Version": {1 if system_identifier is None else 2},\n'
    if system_identifier is not None:
        head += f'"System-Identifier": {system_identifier},\n'
    lines = []
    for name, content in files.items():
        raw = name.encode("utf-8", "surrogateescape")
        try:
            path = f'"Path": {json.dumps(raw.decode(), ensure_ascii=False)}'
        except UnicodeDecodeError:
            path = f'"Encoded-Path": "{raw.hex()}"'
        line = f'{{ {path}, "Size": {len(content)}, "Last-Modified": "2026-03-01 12:00:00 GMT"'
        if algorithm != "NONE":
            checksum = FileChecksum(algorithm)
            checksum.update(content)
            line += f', "Checksum-Algorithm": "{algorithm}", "Checksum": "{checksum.hexdigest()}"'
        lines.append(line + " }")
    body = head + '"Files": [\n' + ",\n".join(lines) + "\n],\n" + '"WAL-Ranges": [\n'
    body += f'{{ "Timeline": {timeline}, "Start-LSN": "{start}", "End-LSN": "{stop}" }}\n],\n'
    raw = body.encode()
    return raw + f'"Manifest-Checksum": "{hashlib.sha256(raw).hexdigest()}"}}\n'.encode()


def history_text(history: TimelineHistory) -> str:
    return "".join(f"{a.timeline}\t{a.fork}\t{a.reason}\n" for a in history.ancestors)


@dataclass
class MadeRepository:
    """A store with one cluster; ``backup`` and ``wal`` fill it."""

    codec: Codec = ZSTD
    segment_bytes: int = 1 << 20
    store: Any = field(default_factory=MemoryStore)
    system_identifier: int = SYSTEM

    def claim(self) -> None:
        self.store.put(keys.CLUSTER, ClusterDocument(self.system_identifier, self.segment_bytes, 180000).encode())

    def backup(
        self,
        start: Lsn,
        stop: Lsn,
        *,
        timeline: int = 1,
        files: Mapping[str, bytes] = FILES,
        parts: int = 2,
        minutes: int = 0,
        algorithm: str = "CRC32C",
        **extras: object,
    ) -> str:
        """A sealed backup of ``files``; returns its name."""
        name = keys.backup_name(timeline, start, self.segment_bytes)
        extension = self.codec.extension
        data = {path: content for path, content in files.items() if path != "global/pg_control"}
        for number in range(parts):
            chosen = dict(list(data.items())[number::parts])
            self.put(keys.part(name, number + 1, extension), make_tar(chosen))
        control = {"global/pg_control": files["global/pg_control"]}
        self.put(keys.control_tar(name, extension), make_tar(control, ()))
        manifest = make_manifest(
            files, start, stop, timeline=timeline, algorithm=algorithm, system_identifier=self.system_identifier
        )
        self.put(keys.manifest(name, extension), manifest)
        stored = sum(info.size_bytes for info in self.store.list(keys.tar_folder(name)))
        documents = self.documents(start, stop, timeline=timeline, minutes=minutes, stored_bytes=stored, **extras)
        self.store.put(keys.metadata(name), documents.metadata())
        self.store.put(keys.files_metadata(name), b"".join(files_metadata(((p, 1.5e9) for p in files), {})))
        self.store.put(keys.sentinel(name), documents.sentinel())
        return name

    def documents(
        self,
        start: Lsn,
        stop: Lsn,
        *,
        timeline: int = 1,
        minutes: int = 0,
        stored_bytes: int = 100,
        permanent: bool = False,
        **extras: object,
    ) -> BackupDocuments:
        moment = NOON + timedelta(minutes=minutes)
        more: dict[str, object] = {"manifest": f"backup_manifest.{self.codec.extension}", "label": "by hand"} | extras
        return BackupDocuments(
            timeline=timeline,
            start_lsn=start,
            finish_lsn=stop,
            pg_version=180001,
            system_identifier=self.system_identifier,
            started=moment - timedelta(minutes=1),
            finished=moment,
            hostname="db-1",
            data_directory="/var/lib/postgresql/18/main",
            raw_bytes=1000,
            stored_bytes=stored_bytes,
            permanent=permanent,
            tablespaces=(Tablespace(16384, "/mnt/ts 1"),),
            extras=BackupExtras(version="0.1.0", segment_bytes=self.segment_bytes, **more),  # type: ignore[arg-type]
        )

    def put(self, key: str, content: bytes) -> None:
        self.store.put(key, self.codec.encode(content))

    def wal(self, made: MadeWal, *, first: int | None = None, pieces: int = 3) -> None:
        """Every whole segment from number ``first`` on, and the open one in pieces."""
        for number in made.numbers():
            if first is None or number >= first:
                self.put(self.segment_key(made.timeline, number), made.segment(number))
        segment, tail = made.tail()
        step = -(-len(tail) // pieces) if tail and pieces else 0
        for begin in range(0, len(tail), step) if step else ():
            part = tail[begin : begin + step]
            self.put(keys.piece(str(segment), begin, begin + len(part), self.codec.extension), part)

    def history(self, timeline: int, *ancestors: tuple[int, Lsn]) -> TimelineHistory:
        history = TimelineHistory(timeline, tuple(Ancestor(parent, fork, _REASON) for parent, fork in ancestors))
        self.put(keys.wal(history_name(timeline), self.codec.extension), history_text(history).encode())
        return history

    def watched(self, put_by_us: Callable[[str], bool] = lambda _: False) -> CatalogWatch:
        """A watch that has looked at it once."""
        watch = CatalogWatch(self.store, self.codec, put_by_us=put_by_us)
        watch.look(0.0, moving=True)
        return watch

    def segment_key(self, timeline: int, number: int) -> str:
        return keys.wal(str(SegmentName(timeline, number, self.segment_bytes)), self.codec.extension)
