"""The twin of an object store: the whole contract in a dictionary, with faults on demand.

For tests of everything above storage, and proven by the same suite as the real stores. ``fail_next`` makes a call
fail before it has an effect, or after (an answer that got lost); ``on_call`` sees every call first, and may block,
raise or change the store, to put another writer between two steps.
"""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pgbackup.errors import ObjectMissing, StorageError
from pgbackup.storage.base import ByteStream, ObjectInfo, UnfinishedUpload


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class _Fault:
    operation: str
    error: Exception
    times: int
    after: bool


@dataclass(slots=True)
class _Pending:
    key: str
    started: datetime
    parts: dict[int, bytes] = field(default_factory=dict)


class MemoryStore:
    """An ObjectStore in memory. Operations are named like the methods of the port, of its uploads and streams."""

    def __init__(self, *, now: Callable[[], datetime] = _now, min_part_bytes: int = 1) -> None:
        self.on_call: Callable[[str, str], None] | None = None
        """Called with (operation, key) before each operation, outside any lock."""
        self.calls: Counter[str] = Counter()
        """How often each operation was called."""
        self._now = now
        self._min_part_bytes = min_part_bytes
        self._lock = threading.RLock()
        self._objects: dict[str, tuple[bytes, ObjectInfo]] = {}
        self._uploads: dict[str, _Pending] = {}
        self._faults: list[_Fault] = []
        self._number = 0

    @property
    def url(self) -> str:
        return "memory://"

    @property
    def min_part_bytes(self) -> int:
        return self._min_part_bytes

    def fail_next(self, operation: str, error: Exception, times: int = 1, *, after: bool = False) -> None:
        """Raise ``error`` in the next ``times`` calls of ``operation``; ``after``: when they have had their effect."""
        with self._lock:
            self._faults.append(_Fault(operation, error, times, after))

    # -- writing ------------------------------------------------------------------------------------------------

    def put(self, key: str, data: bytes) -> None:
        with self._operation("put", key):
            self._store(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._operation("put_if_absent", key):
            if key in self._objects:
                return False
            self._store(key, data)
            return True

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        with self._operation("replace", key):
            if key not in self._objects or self._objects[key][1].etag != etag:
                return False
            self._store(key, data)
            return True

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with self._operation("delete", key):
                self._objects.pop(key, None)

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, key: str) -> bytes:
        with self._operation("get", key):
            return self._found(key)[0]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        with self._operation("get_with_etag", key):
            data, info = self._found(key)
            return data, info.etag

    @contextmanager
    def open_read(self, key: str) -> Iterator[ByteStream]:
        with self._operation("open_read", key):
            data = self._found(key)[0]
        yield _Stream(self, key, data)

    def head(self, key: str) -> ObjectInfo | None:
        with self._operation("head", key):
            return self._objects[key][1] if key in self._objects else None

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        with self._operation("list", prefix):
            keys = sorted(key for key in self._objects if key.startswith(prefix) and key > start_after)
            found = [self._objects[key][1] for key in keys]
        yield from found

    def list_level(self, prefix: str = "") -> tuple[Sequence[ObjectInfo], Sequence[str]]:
        with self._operation("list_level", prefix):
            infos = [self._objects[key][1] for key in sorted(self._objects) if key.startswith(prefix)]
        rests = [(info, info.key[len(prefix) :].partition("/")) for info in infos]
        folders = {prefix + name + slash for _, (name, slash, _) in rests if slash}
        return [info for info, (_, slash, _) in rests if not slash], sorted(folders)

    # -- multipart uploads --------------------------------------------------------------------------------------

    def start_upload(self, key: str) -> _Upload:
        with self._operation("start_upload", key):
            self._number += 1
            upload_id = f"upload-{self._number}"
            self._uploads[upload_id] = _Pending(_checked(key), self._now())
            return _Upload(self, key, upload_id)

    def list_uploads(self, prefix: str = "") -> Sequence[UnfinishedUpload]:
        with self._operation("list_uploads", prefix):
            return [
                UnfinishedUpload(pending.key, upload_id, pending.started)
                for upload_id, pending in self._uploads.items()
                if pending.key.startswith(prefix)
            ]

    def abort_upload(self, key: str, upload_id: str) -> None:
        with self._operation("abort_upload", key):
            self._uploads.pop(upload_id, None)

    def read(self, stream: io.BytesIO, key: str, size: int) -> bytes:
        with self._operation("read", key):
            return stream.read(size)

    def put_part(self, upload_id: str, key: str, number: int, data: bytes) -> None:
        with self._operation("put_part", key):
            if number < 1:
                raise StorageError(f"upload of {key}: there is no part {number}")
            self._pending(upload_id).parts[number] = bytes(data)

    def complete(self, upload_id: str, key: str) -> bool:
        with self._operation("complete", key):
            parts = [data for _, data in sorted(self._pending(upload_id).parts.items())]
            if not parts or any(len(data) < self._min_part_bytes for data in parts[:-1]):
                raise StorageError(f"upload of {key} has no parts, or one that is too small")
            del self._uploads[upload_id]
            if key in self._objects:
                return False
            self._store(key, b"".join(parts))
            return True

    # -- the store itself ---------------------------------------------------------------------------------------

    def clock(self) -> datetime | None:
        with self._operation("clock", ""):
            return self._now()

    def close(self) -> None:
        """Nothing is kept open."""

    # -- inside -------------------------------------------------------------------------------------------------

    @contextmanager
    def _operation(self, operation: str, key: str) -> Iterator[None]:
        if self.on_call is not None:
            self.on_call(operation, key)
        with self._lock:
            self.calls[operation] += 1
            self._fail(operation, after=False)
            yield
            self._fail(operation, after=True)

    def _fail(self, operation: str, *, after: bool) -> None:
        for fault in self._faults:
            if fault.operation == operation and fault.after == after and fault.times > 0:
                fault.times -= 1
                raise fault.error

    def _store(self, key: str, data: bytes) -> None:
        self._number += 1
        info = ObjectInfo(_checked(key), len(data), self._now(), f"version-{self._number}")
        self._objects[key] = (bytes(data), info)

    def _found(self, key: str) -> tuple[bytes, ObjectInfo]:
        if key not in self._objects:
            raise ObjectMissing(f"object {key} does not exist")
        return self._objects[key]

    def _pending(self, upload_id: str) -> _Pending:
        if upload_id not in self._uploads:
            raise StorageError(f"upload {upload_id} was completed or aborted")
        return self._uploads[upload_id]


class _Stream:
    """An open object of a MemoryStore; each read is an operation of its own."""

    def __init__(self, store: MemoryStore, key: str, data: bytes) -> None:
        self._store = store
        self._key = key
        self._stream = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._store.read(self._stream, self._key, size)


class _Upload:
    """A multipart upload of a MemoryStore."""

    def __init__(self, store: MemoryStore, key: str, upload_id: str) -> None:
        self._store = store
        self._key = key
        self._upload_id = upload_id

    @property
    def upload_id(self) -> str:
        return self._upload_id

    def put_part(self, number: int, data: bytes) -> None:
        self._store.put_part(self._upload_id, self._key, number, data)

    def complete(self) -> bool:
        return self._store.complete(self._upload_id, self._key)

    def abort(self) -> None:
        self._store.abort_upload(self._key, self._upload_id)


def _checked(key: str) -> str:
    if not key or key.startswith("/"):
        raise StorageError(f"not a key: {key!r}")
    return key
