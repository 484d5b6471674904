"""Where received WAL waits for the tool as files: one small folder that looks like a data directory's for each file.

A tool looks for more to do beside the file that it is given (`archive_status/*.ready` beside a segment), and WAL-G
keeps a folder of its own in $PGDATA. So each file lies alone: ``<n>/pg_wal/<name>``, with an empty ``archive_status``,
and ``<n>`` is the PGDATA that the tool is told. It holds WAL in plain text: for its owner only.

The spool of a process that is gone is removed by the next one; a lock tells whether its owner lives. It lies where
TMPDIR says. Its size is bounded by whoever fills it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from itertools import count
from pathlib import Path

from pgbackup.errors import ToolError

_PREFIX = "pgbackup-spool-"
_LOCK = "lock"
_log = logging.getLogger(__name__)


class SpooledFile:
    """One file on its way to the tool. ``folder`` is what the tool is told to be PGDATA. For one thread at a time."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.path = folder / "pg_wal" / name
        self.size_bytes = 0
        self._descriptor = -1

    def write(self, block: bytes) -> None:
        """Append. Raises ToolError when there is no room."""
        try:
            if self._descriptor < 0:
                (self.folder / "pg_wal" / "archive_status").mkdir(parents=True, mode=0o700)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._descriptor = os.open(self.path, flags, 0o600)
            view = memoryview(block)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as exc:
            raise spool_error(self.path, exc) from exc
        self.size_bytes += len(block)

    def complete(self) -> None:
        """No more is written."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def beside(self, name: str) -> Path:
        """A path in the same folder for what the tool is to write; nothing is there."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        return path

    def remove(self) -> None:
        self.complete()
        shutil.rmtree(self.folder, ignore_errors=True)


class Spool:
    """The spool of one process. Thread-safe."""

    def __init__(self, parent: Path | None = None) -> None:
        """Make it below ``parent`` (default: where TMPDIR says) and remove those of dead processes."""
        parent = parent or Path(tempfile.gettempdir())
        try:
            _remove_abandoned(parent)
            # Nobody looks at this name: a spool is seen with its lock held, or it would be taken for an abandoned one.
            hidden = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent))
            self._lock = os.open(hidden / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.folder = hidden.rename(parent / hidden.name.removeprefix("."))
        except OSError as exc:
            raise spool_error(parent, exc) from exc
        self._numbers = count(1)

    def new(self, name: str) -> SpooledFile:
        """A file to be; nothing is on the disk before its first byte."""
        return SpooledFile(self.folder / str(next(self._numbers)), name)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def spool_error(path: Path, exc: OSError) -> ToolError:
    """Ours for an OSError of the spool; trying again may help."""
    error = ToolError(
        f"the spool of WAL cannot be used: {path}",
        detail=exc.strerror or str(exc),
        hint="It lies where TMPDIR says and needs room for a few WAL segments.",
    )
    error.retryable = True
    return error


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # just being made, or just removed
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            _log.info("removed %s, the spool of a process that is gone", folder)
        except OSError:
            continue  # its owner lives
        finally:
            os.close(descriptor)
