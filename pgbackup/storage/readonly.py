"""A store that cannot be written: what every command gets that has no business writing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from pgbackup.errors import StorageError
from pgbackup.storage.base import MultipartUpload
from pgbackup.storage.forwarding import ForwardingStore


class ReadOnlyStore(ForwardingStore):
    """Passes reads on and refuses everything else."""

    def put(self, key: str, data: bytes) -> None:
        self._refuse("put", key)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._refuse("put_if_absent", key)

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        self._refuse("replace", key)

    def delete(self, keys: Iterable[str]) -> None:
        self._refuse("delete", "objects")

    def start_upload(self, key: str) -> MultipartUpload:
        self._refuse("start_upload", key)

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._refuse("abort_upload", key)

    def _refuse(self, operation: str, key: str) -> NoReturn:
        raise StorageError(f"{operation} of {key} was refused: {self._store.url} is opened for reading only")
