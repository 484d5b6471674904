"""Base backups taken straight by the engine, with the simplest WAL coverage there is; and what they hold."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pgbackup.core.lsn import Lsn, SegmentName, segments_covering
from pgbackup.engines.backup.base_backup import BackupRequest, BackupResult, take_backup
from pgbackup.engines.base import SilentProgress, StopSignal
from pgbackup.errors import BackupError
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.base import ObjectStore

ZSTD = Codec(Compression("zstd", 1))
HOST = "here"
_WAIT_SECONDS = 30


class CopiedWal:
    """WAL coverage that copies segments from the server's own directory when it is asked for them."""

    def __init__(self, server: ThrowawayServer, store: ObjectStore, codec: Codec = ZSTD) -> None:
        self._folder = server.data_directory / "pg_wal"
        self._server = server
        self._store = store
        self._codec = codec
        self._start = Lsn(0)

    def begin(self, timeline: int, start_lsn: Lsn, segment_bytes: int) -> None:
        self._start = start_lsn

    def wait_for(self, timeline: int, lsn: Lsn, segment_bytes: int, stop: StopSignal, *, tail_counts: bool) -> bool:
        segments = segments_covering(timeline, self._start, lsn, segment_bytes)
        if tail_counts:
            last = segments.pop()
            size = lsn - last.start
            data = (self._folder / str(last)).read_bytes()[:size]
            self._store.put_if_absent(keys.piece(str(last), 0, size, self._codec.extension), self._codec.encode(data))
        else:
            self._wait_written(segments[-1])
        for segment in segments:
            key = keys.wal(str(segment), self._codec.extension)
            self._store.put_if_absent(key, self._codec.encode((self._folder / str(segment)).read_bytes()))
        return tail_counts

    def close(self) -> None: ...

    def _wait_written(self, segment: SegmentName) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        query = "SELECT pg_current_wal_flush_lsn()::text"
        while Lsn.parse(self._server.execute(query)[0][0]) < segment.end:
            if time.monotonic() > deadline:
                raise BackupError(f"{segment} is not complete")
            time.sleep(0.05)


def request_for(server: ThrowawayServer, store: ObjectStore, **changes: Any) -> BackupRequest:
    """A request with everything as usual but ``changes``."""
    codec = changes.get("codec", ZSTD)
    fields = {
        "store": store,
        "codec": codec,
        "conninfo": server.conninfo(user="pgbackup"),
        "application_name": "pgbackup",
        "wal": CopiedWal(server, store, codec),
        "hostname": HOST,
    }
    return BackupRequest(**{**fields, **changes})


def take(
    server: ThrowawayServer, store: ObjectStore, *, stop: threading.Event | None = None, **changes: Any
) -> BackupResult:
    """Take a backup in this thread."""
    return take_backup(request_for(server, store, **changes), SilentProgress(), stop or threading.Event())


def tar_members(store: ObjectStore, name: str, codec: Codec = ZSTD) -> dict[str, list[str]]:
    """The member names of every tar of a backup, by the tar's own name."""
    found = {}
    for info in store.list(keys.tar_folder(name)):
        with tarfile.open(fileobj=io.BytesIO(codec.decode(info.key, store.get(info.key)))) as tar:
            found[info.key.rpartition("/")[2]] = [member.name + "/" * member.isdir() for member in tar]
    return found


def extract(store: ObjectStore, name: str, target: Path, codec: Codec = ZSTD) -> None:
    """Unpack a backup as a plain directory, tablespaces as directories in pg_tblspc, and its manifest."""
    target.mkdir(mode=0o700, exist_ok=True)
    for info in store.list(keys.tar_folder(name)):
        with tarfile.open(fileobj=io.BytesIO(codec.decode(info.key, store.get(info.key)))) as tar:
            # As an argument it came with 3.11.4; Debian 12 has 3.11.2.
            tar.extraction_filter = getattr(tarfile, "tar_filter", None)
            tar.extractall(target)
    manifest = keys.manifest(name, codec.extension)
    (target / "backup_manifest").write_bytes(codec.decode(manifest, store.get(manifest)))


def put_wal(store: ObjectStore, target: Path, codec: Codec = ZSTD) -> None:
    """Put every whole segment of the repository into an unpacked backup."""
    for info in store.list(keys.WAL):
        name = keys.split_extension(info.key.removeprefix(keys.WAL))[0]
        if "/" not in name:
            (target / "pg_wal" / name).write_bytes(codec.decode(info.key, store.get(info.key)))


def sentinel(store: ObjectStore, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(store.get(keys.sentinel(name)))
    return document


def leftovers(store: ObjectStore) -> list[str]:
    """Every object and unfinished upload that belongs to no sealed backup."""
    sealed = {
        info.key.removesuffix(keys.SENTINEL_SUFFIX)
        for info in store.list(keys.BASEBACKUPS)
        if info.key.endswith(keys.SENTINEL_SUFFIX)
    }
    found = [info.key for info in store.list(keys.BASEBACKUPS)] + [info.key for info in store.list(keys.INTENTS)]
    found += [upload.key for upload in store.list_uploads(keys.BASEBACKUPS)]
    return [key for key in found if not any(key.startswith(name) for name in sealed)]


class BackupThread:
    """A backup in a thread of the test; ``join`` returns its result or raises what it raised."""

    def __init__(self, server: ThrowawayServer, store: ObjectStore, **changes: Any) -> None:
        self.stop = threading.Event()
        self._request = request_for(server, store, **changes)
        self._result: BackupResult | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="backup", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = take_backup(self._request, SilentProgress(), self.stop)
        except BaseException as exc:  # noqa: BLE001 - given to the test
            self.error = exc

    def join(self, timeout: float = 60) -> BackupResult:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the backup did not end"
        if self.error is not None:
            raise self.error
        assert self._result is not None
        return self._result

    def wait_failed(self, timeout: float = 60) -> BaseException:
        with suppress(BaseException):
            self.join(timeout)
        assert self.error is not None, "the backup did not fail"
        return self.error
