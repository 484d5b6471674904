"""One file repository object sent in parts: each part a hidden file, joined when the upload is completed.

``.pgbackup-tmp/uploads/<upload id>/`` holds ``key`` (the object's key) and the parts, named by number.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pgbackup.errors import StorageError
from pgbackup.storage.base import UnfinishedUpload
from pgbackup.storage.disk import Disk, create, translated

_NO_KERNEL_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
COPY_BYTES = 16 << 20


class FileUpload:
    """A multipart upload begun by this process; parts may come from several threads."""

    def __init__(self, disk: Disk, key: str, target: Path) -> None:
        self._disk = disk
        self._target = target
        self._what = f"upload of {key}"
        self._upload_id = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._parts: set[int] = set()
        self._folder = uploads_folder(disk) / self._upload_id
        with translated(self._what):
            disk.make_folder(self._folder)
            with os.fdopen(create(self._folder / "key", os.O_WRONLY), "w", encoding="utf-8") as file:
                file.write(key)

    @property
    def upload_id(self) -> str:
        return self._upload_id

    def put_part(self, number: int, data: bytes) -> None:
        if number < 1:
            raise StorageError(f"{self._what}: there is no part {number}")
        written = self._folder / f"new-{uuid.uuid4().hex}"
        with translated(f"part {number} of {self._what}"):
            with os.fdopen(create(written, os.O_WRONLY), "wb", buffering=0) as file:
                # Not flushed to the disk: the joined file will be.
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
            written.rename(self._part(number))
        with self._lock:
            self._parts.add(number)

    def complete(self) -> bool:
        # Not what the folder shows: an abort that is at work empties it, and the object would have a hole.
        with self._lock:
            parts = sorted(self._parts)
        if not parts:
            raise StorageError(f"{self._what} has no parts")
        with translated(f"completing the {self._what}"), self._disk.temporary() as (path, joined):
            for part in parts:
                with self._part(part).open("rb") as source:
                    _append(joined, source)
            stored = self._disk.name_new(path, joined, self._target)
        self.abort()
        return stored

    def abort(self) -> None:
        abort_upload(self._disk, self._upload_id)

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:08d}"


def uploads_folder(disk: Disk) -> Path:
    return disk.hidden / "uploads"


def list_uploads(disk: Disk) -> Iterator[UnfinishedUpload]:
    """Every upload that was neither completed nor aborted."""
    try:
        folders = sorted(uploads_folder(disk).iterdir())
    except FileNotFoundError:
        return
    for folder in folders:
        try:
            name = folder / "key"
            started = datetime.fromtimestamp(name.stat().st_mtime, UTC)
            yield UnfinishedUpload(name.read_text(encoding="utf-8"), folder.name, started)
        except FileNotFoundError:
            # Completed or aborted meanwhile.
            continue


def abort_upload(disk: Disk, upload_id: str) -> None:
    if not upload_id.isalnum():
        raise StorageError(f"not an upload id of a file repository: {upload_id!r}")
    with translated(f"abort of upload {upload_id}"):
        try:
            shutil.rmtree(uploads_folder(disk) / upload_id)
        except FileNotFoundError:
            return


def _append(target: BinaryIO, source: BinaryIO) -> None:
    """Copy a file to the end of another, inside the kernel where it can."""
    target.flush()
    try:
        while os.copy_file_range(source.fileno(), target.fileno(), COPY_BYTES):
            pass
    except OSError as error:
        if error.errno not in _NO_KERNEL_COPY:
            raise
        shutil.copyfileobj(source, target, 1 << 20)
