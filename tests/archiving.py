"""Puts a server's base backup and WAL into a repository, with Postgres' own tools instead of ours.

So restores are tested against what the server itself says a backup is, with any gap or damage that a test wants.
"""

from __future__ import annotations

import re
import shutil
import tarfile
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from pgbackup.core.backup import Tablespace
from pgbackup.core.lsn import Lsn, SegmentName, is_segment_name
from pgbackup.core.timeline import parse_history_name
from pgbackup.core.wal_page import segment_problem
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.postgres.unprivileged import readable_installation
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec
from pgbackup.repository.documents import BackupDocuments, BackupExtras, ClusterDocument
from pgbackup.repository.manifest import ManifestReader
from pgbackup.storage.base import ObjectStore
from tests.fix_postgres import ServerFactory

CONTROL = "global/pg_control"
PART_BYTES = 4 << 20


class Archiver:
    """Archives servers of one cluster into one repository."""

    def __init__(self, factory: ServerFactory, store: ObjectStore, codec: Codec) -> None:
        self.factory = factory
        self.store = store
        self.codec = codec

    # -- base backups -------------------------------------------------------------------------------------------------

    def backup(self, server: ThrowawayServer, *, part_bytes: int = PART_BYTES, finished: datetime | None = None) -> str:
        """A base backup with pg_basebackup; returns its name."""
        folder = self.factory.new_directory(f"copy-{datetime.now(UTC).timestamp()}")
        program = readable_installation(self._copying(server), server.account).tool("pg_basebackup")
        server.account.run([
            program, "--pgdata", folder, "--dbname", server.conninfo(local=True), "--format", "tar",
            "--checkpoint", "fast", "--wal-method", "none", "--no-sync",
        ])  # fmt: skip
        manifest = (folder / "backup_manifest").read_bytes()
        label = _member(folder / "base.tar", "backup_label").decode()
        start = Lsn.parse(_found(r"START WAL LOCATION: (\S+)", label))
        timeline = int(_found(r"START TIMELINE: (\d+)", label))
        reader = ManifestReader("backup_manifest", BytesIO(manifest))
        raw_bytes = sum(file.size_bytes for file in reader)
        size = self.segment_bytes(server)
        name = keys.backup_name(timeline, start, size)
        tablespaces = tuple(
            Tablespace(oid, location)
            for oid, location in server.execute("SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace")
            if location
        )
        self._put_parts(name, folder, part_bytes)
        key = keys.manifest(name, self.codec.extension)
        self.store.put(key, self.codec.encode(manifest))
        now = finished or datetime.now(UTC)
        documents = BackupDocuments(
            timeline=timeline, start_lsn=start, finish_lsn=reader.wal_ranges[-1].end, started=now, finished=now,
            pg_version=int(server.execute("SHOW server_version_num")[0][0]), system_identifier=self.system(server),
            hostname="test", data_directory=str(server.data_directory), raw_bytes=raw_bytes, stored_bytes=0,
            permanent=False, tablespaces=tablespaces,
            extras=BackupExtras(version="0", segment_bytes=size, manifest=key.rsplit("/", 1)[1]),
        )  # fmt: skip
        self.store.put(keys.metadata(name), documents.metadata())
        self.store.put(keys.sentinel(name), documents.sentinel())
        cluster = ClusterDocument(self.system(server), size, documents.pg_version)
        self.store.put_if_absent(keys.CLUSTER, cluster.encode())
        shutil.rmtree(folder)
        return name

    def _put_parts(self, name: str, folder: Path, part_bytes: int) -> None:
        parts = _Parts(self.store, self.codec, name, part_bytes)
        for path in sorted(folder.glob("*.tar")):
            prefix = "" if path.name == "base.tar" else f"pg_tblspc/{path.stem}/"
            with tarfile.open(path) as tar:
                for member in tar:
                    content = tar.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]
                    member.name = prefix + member.name.removeprefix("./")
                    parts.add(member, content)
        parts.finish()

    def _copying(self, server: ThrowawayServer):
        for major, installation in sorted(self.factory.installations.items()):
            if major >= server.major and "pg_basebackup" in installation.tools:
                return installation
        raise AssertionError("no pg_basebackup")

    # -- WAL ----------------------------------------------------------------------------------------------------------

    def wal(self, server: ThrowawayServer, *, tail: bool = True, mark: bool = True) -> Lsn:
        """All WAL of the running server's timeline that it still has, histories too; returns the end."""
        end = Lsn.parse(server.execute("SELECT pg_current_wal_flush_lsn()::text")[0][0])
        now = server.execute("SELECT clock_timestamp()")[0][0]
        timeline = int(server.execute("SELECT pg_walfile_name(pg_current_wal_lsn())")[0][0][:8], 16)
        size = self.segment_bytes(server)
        for path in sorted((server.data_directory / "pg_wal").iterdir()):
            if parse_history_name(path.name):
                self.store.put_if_absent(self._wal_key(path.name), self.codec.encode(path.read_bytes()))
            elif is_segment_name(path.name):
                self._put_segment(SegmentName.parse(path.name, size), path, end, timeline, tail=tail)
        if mark:
            self.store.put_if_absent(keys.mark(now, timeline, end), b"")
        return end

    def _put_segment(self, segment: SegmentName, path: Path, end: Lsn, timeline: int, *, tail: bool) -> None:
        if segment.timeline != timeline or segment.start >= end:
            return
        data = path.read_bytes()
        if segment_problem(data, segment, None):
            return
        if segment.end <= end:
            self.store.put_if_absent(self._wal_key(str(segment)), self.codec.encode(data))
        elif tail:
            used = end - segment.start
            key = keys.piece(str(segment), 0, used, self.codec.extension)
            self.store.put_if_absent(key, self.codec.encode(data[:used]))

    def _wal_key(self, name: str) -> str:
        return keys.wal(name, self.codec.extension)

    # -- the cluster --------------------------------------------------------------------------------------------------

    def segment_bytes(self, server: ThrowawayServer) -> int:
        return int(server.execute("SELECT bytes_per_wal_segment FROM pg_control_init()")[0][0])

    def system(self, server: ThrowawayServer) -> int:
        return int(server.execute("SELECT system_identifier FROM pg_control_system()")[0][0]) % (1 << 64)


class _Parts:
    """Tars of about ``part_bytes``, and the one with the control file."""

    def __init__(self, store: ObjectStore, codec: Codec, name: str, part_bytes: int) -> None:
        self._store, self._codec, self._name, self._part_bytes = store, codec, name, part_bytes
        self._number = 0
        self._begin()

    def add(self, member: tarfile.TarInfo, content: bytes) -> None:
        if member.name == CONTROL:
            buffer = BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                tar.addfile(member, BytesIO(content))
            self._store.put(keys.control_tar(self._name, self._codec.extension), self._codec.encode(buffer.getvalue()))
            return
        if self._buffer.tell() > self._part_bytes:
            self.finish()
        self._tar.addfile(member, BytesIO(content))

    def finish(self) -> None:
        self._tar.close()
        self._number += 1
        key = keys.part(self._name, self._number, self._codec.extension)
        self._store.put(key, self._codec.encode(self._buffer.getvalue()))
        self._begin()

    def _begin(self) -> None:
        self._buffer = BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.GNU_FORMAT)  # noqa: SIM115


def _member(path: Path, name: str) -> bytes:
    with tarfile.open(path) as tar:
        return tar.extractfile(name).read()  # type: ignore[union-attr]


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]
