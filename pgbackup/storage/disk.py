"""Durable, atomic writes below one folder: what a file repository is made of.

A file is written under a temporary name in ``.pgbackup-tmp/``, flushed to the disk, and then given its name: by a
hard link, which fails if the name is taken, or by a rename, which replaces. Then the folder is flushed. So a name
either leads to a whole file or does not exist, also after a power cut.

``.pgbackup-tmp/lock`` orders those who replace or remove, in all processes of this machine.

What root makes here belongs to the owner of the folder that it is made in: files are for their owner only, and whoever
backs up as that user must be able to read what an administrator's command has left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from pgbackup.errors import StorageError, StoreDenied, StoreUnavailable

T = TypeVar("T")

HIDDEN = ".pgbackup-tmp"
LOCK = "lock"
LOCK_SECONDS = 30.0
FOLDER_TRIES = 10

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_PASSING = frozenset(
    {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOMEM}
    | {errno.EMFILE, errno.ENFILE, errno.ENODEV, errno.EBUSY}
)
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns an OSError into ours; ``what`` begins the message. Files that are not there are the caller's affair."""
    try:
        yield
    except OSError as error:
        raise translate(error, what) from error


def translate(error: OSError, what: str) -> StorageError:
    detail = error.strerror or str(error)
    if error.errno in _FULL:
        return StoreUnavailable(f"{what}: the disk is full", detail=detail, hint="Free space on the repository's disk.")
    if error.errno in _DENIED:
        return StoreDenied(f"{what}: not permitted", detail=detail, hint="Give this user the repository's folder.")
    if error.errno in _PASSING:
        return StoreUnavailable(f"{what}: the disk does not answer", detail=detail)
    return StorageError(f"{what} failed", detail=detail)


class Disk:
    """The folder of a repository. Raises OSErrors; callers know what to call the object."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hidden = root / HIDDEN

    @contextmanager
    def temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A new file to be written; it is gone at the end, whatever other name it got."""
        self.make_folder(self.hidden)
        path = self.hidden / f"{os.getpid()}-{uuid.uuid4().hex}"
        with os.fdopen(create(path, os.O_WRONLY), "wb") as file:
            try:
                yield path, file
            finally:
                with suppress(FileNotFoundError):
                    path.unlink()

    def name_new(self, written: Path, file: BinaryIO, target: Path) -> bool:
        """Give a finished file its name unless that is taken. Either way, what is there is durable."""

        def link() -> bool:
            try:
                os.link(written, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return self._name_new_without_links(written, target)
            return True

        flush(file)
        stored = self._in_folder(target.parent, link)
        flush_folder(target.parent)
        return stored

    def name(self, written: Path, file: BinaryIO, target: Path) -> None:
        """Give a finished file its name, in place of what had it. Under the lock."""
        flush(file)
        self._in_folder(target.parent, lambda: written.replace(target))
        flush_folder(target.parent)

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove files in order, each durably before one of another folder goes, and folders that got empty."""
        folder: Path | None = None
        for path in paths:
            if folder is not None and folder != path.parent:
                self._leave(folder)
            folder = path.parent
            with self.locked(), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()
        if folder is not None:
            self._leave(folder)

    def sweep(self, older_than_seconds: float = 24 * 3600) -> None:
        """Remove what crashed writers left under temporary names."""
        limit = time.time() - older_than_seconds
        with suppress(OSError), os.scandir(self.hidden) as entries:
            for entry in entries:
                if entry.name != LOCK and entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < limit:
                    Path(entry.path).unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One at a time, of all threads and processes; gives up when it takes too long."""
        self.make_folder(self.hidden)
        try:
            descriptor = create(self.hidden / LOCK, os.O_RDWR)
        except FileExistsError:
            descriptor = os.open(self.hidden / LOCK, os.O_RDWR | os.O_CLOEXEC)
        try:
            deadline, pause = time.monotonic() + LOCK_SECONDS, 0.001
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise StoreUnavailable(f"{self.hidden / 'lock'} is held by another process") from None
                time.sleep(pause)
                pause = min(pause * 2, 0.1)
            yield
        finally:
            os.close(descriptor)

    def make_folder(self, folder: Path) -> None:
        """Make it and what is above it, durably, for this user only."""
        if folder.is_dir():
            return
        self.make_folder(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            if self.root in folder.parents:
                # A deletion may take the folder away again at once.
                with (
                    suppress(FileNotFoundError),
                    _opened(folder.parent) as parent,
                    _opened(folder.name, within=parent) as made,
                ):
                    _leave_to_owner(parent, made)
        flush_folder(folder.parent)

    def _in_folder(self, folder: Path, action: Callable[[], T]) -> T:
        """``action`` with the folder there. A deletion of its last file may take the folder away in between."""
        for _ in range(FOLDER_TRIES):
            self.make_folder(folder)
            try:
                return action()
            except FileNotFoundError as error:
                missing = error
        raise missing

    def _name_new_without_links(self, written: Path, target: Path) -> bool:
        """For file systems without hard links: the lock makes look and rename one step, among ourselves."""
        with self.locked():
            if target.exists():
                return False
            written.replace(target)
            return True

    def _leave(self, folder: Path) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            flush_folder(folder)
        # rmdir refuses a folder that is not empty, which ends this. Nothing depends on empty folders: none is listed.
        with suppress(OSError):
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent


def create(path: Path, flags: int) -> int:
    """A new file for its owner only, which is that of its folder where root makes it. Raises FileExistsError."""
    with _opened(path.parent) as folder:
        descriptor = os.open(path.name, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        _leave_to_owner(folder, descriptor)
        return descriptor


def _leave_to_owner(folder: int, made: int) -> None:
    """Both by descriptor: a name in a folder of somebody else's may lead elsewhere by now."""
    if os.geteuid() == 0:
        owner = os.fstat(folder)
        # A mounted folder, or a container's root, may not do that; then it stays as it is.
        with suppress(OSError):
            os.fchown(made, owner.st_uid, owner.st_gid)


@contextmanager
def _opened(folder: Path | str, within: int | None = None) -> Iterator[int]:
    """A folder's descriptor; a name ``within`` another folder must not lead out of it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if within is not None else 0)
    descriptor = os.open(folder, flags, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def flush(file: BinaryIO) -> None:
    """To the disk, not only to the kernel."""
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush folders; Postgres lets that pass as well.
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def flush_file_of_others(root: Path, key: str) -> None:
    """Make a file that another program wrote below ``root`` durable: its bytes, and every name on the way to it."""
    path = root / key
    with translated(f"flushing {key}"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        folder = path.parent
        while folder != root.parent:
            flush_folder(folder)
            folder = folder.parent
