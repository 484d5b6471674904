"""A store in front of another one: everything is passed on, and who derives from it says what is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

from pgbackup.storage.base import ByteStream, MultipartUpload, ObjectInfo, ObjectStore, UnfinishedUpload


class ForwardingStore:
    """Implements ObjectStore by asking ``store``."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def min_part_bytes(self) -> int:
        return self._store.min_part_bytes

    def put(self, key: str, data: bytes) -> None:
        self._store.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._store.put_if_absent(key, data)

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        return self._store.replace(key, data, etag)

    def get(self, key: str) -> bytes:
        return self._store.get(key)

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        return self._store.get_with_etag(key)

    def open_read(self, key: str) -> AbstractContextManager[ByteStream]:
        return self._store.open_read(key)

    def head(self, key: str) -> ObjectInfo | None:
        return self._store.head(key)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        return self._store.list(prefix, start_after=start_after)

    def list_level(self, prefix: str = "") -> tuple[Sequence[ObjectInfo], Sequence[str]]:
        return self._store.list_level(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        self._store.delete(keys)

    def start_upload(self, key: str) -> MultipartUpload:
        return self._store.start_upload(key)

    def list_uploads(self, prefix: str = "") -> Sequence[UnfinishedUpload]:
        return self._store.list_uploads(prefix)

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._store.abort_upload(key, upload_id)

    def clock(self) -> datetime | None:
        return self._store.clock()

    def close(self) -> None:
        self._store.close()
