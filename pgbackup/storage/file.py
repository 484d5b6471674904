"""Objects as files of one folder: for a mounted disk, for tests, for trying things out.

A key is the path below the folder. What a disk cannot do like a bucket: a key that goes on below another object's
key has no place and is refused. Writes are atomic and durable (disk.py); temporary files and uploads live in a hidden
folder that no listing shows. Files are for their owner only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pgbackup.errors import ConfigError, ObjectMissing, StorageError
from pgbackup.storage import file_listing
from pgbackup.storage.base import ByteStream, ObjectInfo, UnfinishedUpload
from pgbackup.storage.disk import Disk, translate, translated
from pgbackup.storage.file_upload import FileUpload, abort_upload, list_uploads


class FileStore:
    """An ObjectStore in a folder; the folder is made by the first write."""

    def __init__(self, place: str | Path) -> None:
        """``place`` is a ``file://`` URL, or a path."""
        self._root = folder_of(place) if isinstance(place, str) else place.absolute()
        self._disk = Disk(self._root)
        self._swept = False

    @property
    def url(self) -> str:
        return self._root.as_uri()

    @property
    def min_part_bytes(self) -> int:
        return 1

    # -- writing ------------------------------------------------------------------------------------------------

    def put(self, key: str, data: bytes) -> None:
        target = self._path(key)
        with translated(f"writing {key}"), self._disk.temporary() as (written, file):
            file.write(data)
            with self._disk.locked():
                self._disk.name(written, file, target)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        with translated(f"writing {key}"), self._disk.temporary() as (written, file):
            file.write(data)
            return self._disk.name_new(written, file, target)

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        target = self._path(key)
        with translated(f"replacing {key}"), self._disk.temporary() as (written, file):
            file.write(data)
            with self._disk.locked():
                there = self.head(key)
                if there is None or there.etag != etag:
                    return False
                self._disk.name(written, file, target)
                return True

    def delete(self, keys: Iterable[str]) -> None:
        if self._root.is_dir():
            with translated(f"deleting from {self._root}"):
                self._disk.remove(self._path(key) for key in keys)

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, key: str) -> bytes:
        return self.get_with_etag(key)[0]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        with self._open(key) as file, translated(f"reading {key}"):
            return file.read(), file_listing.info(key, os.fstat(file.fileno())).etag

    @contextmanager
    def open_read(self, key: str) -> Iterator[ByteStream]:
        with self._open(key) as file:
            yield _Reader(key, file)

    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise translate(error, f"looking for {key}") from error
        return file_listing.info(key, status) if stat.S_ISREG(status.st_mode) else None

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        with translated(f"listing {self._root}"):
            yield from file_listing.walk(self._root, prefix, start_after)

    def list_level(self, prefix: str = "") -> tuple[Sequence[ObjectInfo], Sequence[str]]:
        with translated(f"listing {self._root}"):
            return file_listing.level(self._root, prefix)

    # -- multipart uploads --------------------------------------------------------------------------------------

    def start_upload(self, key: str) -> FileUpload:
        if not self._swept:
            self._swept = True
            self._disk.sweep()
        return FileUpload(self._disk, key, self._path(key))

    def list_uploads(self, prefix: str = "") -> Sequence[UnfinishedUpload]:
        with translated(f"listing the uploads of {self._root}"):
            return [upload for upload in list_uploads(self._disk) if upload.key.startswith(prefix)]

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._path(key)
        abort_upload(self._disk, upload_id)

    # -- the store itself ---------------------------------------------------------------------------------------

    def clock(self) -> datetime | None:
        return datetime.now(UTC)

    def close(self) -> None:
        """Nothing is kept open."""

    # -- inside -------------------------------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        if not file_listing.is_key(key):
            raise StorageError(f"not a key of a file repository: {key!r}")
        return self._root / key

    def _open(self, key: str) -> FileIO:
        path = self._path(key)
        missing = ObjectMissing(f"object {key} does not exist", detail=str(path))
        try:
            file = FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise missing from error
        except OSError as error:
            raise translate(error, f"opening {key}") from error
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise missing
        return file


class _Reader:
    """A ByteStream over an open file."""

    def __init__(self, key: str, file: FileIO) -> None:
        self._key = key
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        with translated(f"reading {self._key}"):
            return self._file.read(size)


def folder_of(url: str) -> Path:
    """The folder of ``file:///path``, or of a plain absolute path. Raises ConfigError."""
    if url.startswith("/"):
        return Path(url)
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise ConfigError(
            f"not a repository URL of a folder: {url}", hint="Write file:///path, with % codes for # ? and %."
        )
    path = Path(unquote(parts.path))
    if not path.is_absolute() or path == Path("/"):
        raise ConfigError(f"the repository URL names no folder: {url}", hint="Write file:///path.")
    return path
