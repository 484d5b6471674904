"""Write the files of a base backup: objects in, verified files out, several objects at once.

Each object is one tar. A file is checked against the manifest while it is written: its size and its checksum, and that
the manifest knows it at all. ``global/pg_control`` gets a temporary name, so that nothing starts before all is done.
Nothing but files and directories is made from a tar; links are only collected (links.py). What a server leaves
behind that would disturb a recovery is read, checked, and not written. Of a chain of WAL-G backups a file may come from
any: what to do with each member says a Selection.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pgbackup.core.backup import CONTROL_FILE
from pgbackup.count_text import counted
from pgbackup.engines.base import ProgressSink
from pgbackup.engines.restore.disk_error import disk_error
from pgbackup.engines.restore.place import CONTROL_TEMPORARY, MARKER, Claim
from pgbackup.engines.restore.sync import PUSH_BYTES, push_out, write_all, write_all_at
from pgbackup.engines.restore.wal import FOLDER
from pgbackup.errors import CorruptObject, PgbackupError, RestoreError
from pgbackup.repository.codec import Codec
from pgbackup.repository.increment import read_increment
from pgbackup.repository.manifest import FileChecksum, ManifestFile
from pgbackup.repository.tar_read import READ_BYTES, Member, iter_members
from pgbackup.repository.walg_file_table import Part
from pgbackup.storage.base import ObjectStore

MANIFEST_FILE = "backup_manifest"
_NOT_WRITTEN = frozenset(
    {"postmaster.pid", "postmaster.opts", "recovery.conf", "recovery.signal", "standby.signal", MANIFEST_FILE}
    | {MARKER, CONTROL_TEMPORARY}
)
_RETRY_SECONDS = (1.0, 5.0, 15.0, 60.0, 120.0)
_log = logging.getLogger(__name__)


def is_left_out(name: str) -> bool:
    """Whether a file of a backup is checked but not written: it would disturb the recovery."""
    return name in _NOT_WRITTEN or name.startswith(f"{FOLDER}/")


class ExpectedFiles(Protocol):
    """What the manifest says of a file, by its path; None for one that it does not know. Safe for threads."""

    def find(self, path: str) -> ManifestFile | None: ...


class Selection(Protocol):
    """Which members of one backup's objects are wanted, and as what. Safe for threads."""

    def take(self, key: str, name: str) -> Part: ...

    def bring(self, name: str) -> None:
        """There is a directory or a link of that name."""

    def give_back(self, names: Sequence[str]) -> None:
        """These files were taken from an object that will be read again."""


class Stopped(RestoreError):
    """Another object failed first."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the objects come from."""

    store: ObjectStore
    codec: Codec


class DataFiles:
    """Writes all files of one restore into claimed directories."""

    def __init__(self, source: Source, claim: Claim, expected: ExpectedFiles | None, progress: ProgressSink) -> None:
        self._source = source
        self._directory = claim.place.directory
        self._tablespaces = frozenset(str(oid) for oid in claim.place.tablespaces)
        self._owner = claim.owner
        self._expected = expected
        self._progress = progress
        self._stop = threading.Event()
        self._made: set[str] = set()
        self._skipped: list[str] = []
        self.links: list[tuple[str, str]] = []
        """(name, target) of the symbolic links that the objects hold."""

        self.member_bytes = 0
        """Content of all files that the objects hold."""

        self._lock = threading.Lock()

    def restore(self, keys: Sequence[str], *, threads: int, selection: Selection | None = None) -> None:
        """Write the files of all objects. Raises CorruptObject, RestoreError, and what the store raises in the end."""
        with ThreadPoolExecutor(threads, thread_name_prefix="restore") as pool:
            futures = [pool.submit(self._restore_object, key, selection) for key in keys]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                # Also when we are interrupted: workers end at their next block.
                if any(_failed(future) for future in futures) or not all(f.done() for f in futures):
                    self._stop.set()
                    for future in futures:
                        future.cancel()
        errors = [error for future in futures if (error := _failed(future)) is not None]
        for error in sorted(errors, key=lambda e: isinstance(e, Stopped)):
            raise error

    def link_tablespaces(self, tablespaces: Mapping[int, Path]) -> None:
        """Make the links below pg_tblspc, the only links of a restore."""
        if tablespaces:
            self._make_directory("", "pg_tblspc", 0o700)
        for oid, location in tablespaces.items():
            link = self._directory / "pg_tblspc" / str(oid)
            link.symlink_to(location)
            if self._owner is not None:
                os.chown(link, self._owner.uid, self._owner.gid, follow_symlinks=False)

    def notes(self) -> list[str]:
        """What was left out, for people."""
        if not self._skipped:
            return []
        names = ", ".join(self._skipped[:3])
        return [f"left out, neither file nor directory: {counted(len(self._skipped), 'member')}: {names}"]

    # -- one object ---------------------------------------------------------------------------------------------------

    def _restore_object(self, key: str, selection: Selection | None) -> None:
        """One object; when the store fails for longer than it retries itself, the whole object again, a few times."""
        for pause in (*_RETRY_SECONDS, None):
            attempt = _Attempt(key, selection)
            try:
                with (
                    self._source.store.open_read(key) as stored,
                    self._source.codec.open(key, stored) as content,
                ):
                    for member in iter_members(content, key):
                        self._restore_member(member, attempt)
                with self._lock:
                    self.member_bytes += attempt.member_bytes
                return
            except PgbackupError as exc:
                if not exc.retryable or pause is None:
                    raise
                _log.warning("object %s failed (%s), again in %g seconds", key, exc, pause)
                attempt.undo()
                if self._stop.wait(pause):
                    raise Stopped("the restore was stopped") from exc

    def _restore_member(self, member: Member, attempt: _Attempt) -> None:
        if self._stop.is_set():
            raise Stopped("the restore was stopped")
        if member.kind == "file":
            attempt.member_bytes += member.size_bytes
            match attempt.take(member.name):
                case "whole":
                    self._write_file(attempt.key, member, attempt.written)
                case "increment":
                    self._patch_file(attempt.key, member)
            return
        if attempt.selection is not None:
            attempt.selection.bring(member.name)
        if member.kind == "directory":
            self._make_directory(attempt.key, member.name, member.mode)
        elif member.kind == "symlink":
            self.links.append((member.name, member.linkname))
        else:
            self._skipped.append(member.name)

    def _patch_file(self, key: str, member: Member) -> None:
        """Put the pages of an increment over the file that an older backup of the chain brought."""
        increment = read_increment(key, member)
        if is_left_out(member.name):
            member.skip()
            return
        path = self._directory / member.name
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            problem = f"it brings an increment of {member.name}, which no older backup of the chain brought"
            raise CorruptObject(key, problem) from None
        except OSError as exc:
            raise disk_error(path, exc) from exc
        try:
            os.ftruncate(descriptor, increment.file_bytes)
            for offset, view in increment.pages:
                if self._stop.is_set():
                    raise Stopped("the restore was stopped")
                write_all_at(descriptor, view, offset)
                self._progress.advance(len(view))
        except OSError as exc:
            raise disk_error(path, exc) from exc
        finally:
            os.close(descriptor)

    def _write_file(self, key: str, member: Member, written: list[Path]) -> None:
        name = member.name
        wanted = self._wanted(key, member)
        if is_left_out(name):
            self._copy(key, member, wanted, None)
            return
        folder = name.rpartition("/")[0]
        if folder not in self._made:
            self._make_directory(key, folder, None)
        path = self._directory / (CONTROL_TEMPORARY if name == CONTROL_FILE else name)
        descriptor = self._create(key, path, name)
        written.append(path)
        try:
            os.fchmod(descriptor, member.mode & 0o750 | 0o600)
            if self._owner is not None:
                self._owner.take(descriptor)
            self._copy(key, member, wanted, descriptor)
        except OSError as exc:
            raise disk_error(path, exc) from exc
        finally:
            os.close(descriptor)

    def _create(self, key: str, path: Path, name: str) -> int:
        # WAL-G's remote mode stores the control file twice; everything else may come only once.
        once = 0 if name == CONTROL_FILE else os.O_EXCL
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC | once, 0o600)
        except FileExistsError:
            raise CorruptObject(
                key,
                f"it brings {name}, which another object of the backup brought already",
                hint="Objects of an unfinished backup lie in the same folder: restore another backup.",
            ) from None
        except OSError as exc:
            raise disk_error(path, exc) from exc

    def _copy(self, key: str, member: Member, wanted: ManifestFile | None, descriptor: int | None) -> None:
        """Copy the content, checking it, to a file or (``None``) to nowhere."""
        checksum = FileChecksum(wanted.checksum_algorithm) if wanted is not None else None
        size, pushed = 0, 0
        while block := member.read(READ_BYTES):
            if self._stop.is_set():
                raise Stopped("the restore was stopped")
            if checksum is not None:
                checksum.update(block)
            size += len(block)
            if descriptor is not None:
                write_all(descriptor, block)
                if size - pushed >= PUSH_BYTES:
                    push_out(descriptor, pushed, size)
                    pushed = size
            self._progress.advance(len(block))
        if wanted is not None and checksum is not None and checksum.hexdigest() != wanted.checksum:
            raise CorruptObject(key, f"the content of {member.name} does not have the checksum that the manifest says")

    def _wanted(self, key: str, member: Member) -> ManifestFile | None:
        """What the manifest says of a member. Raises CorruptObject when it does not fit by name or size."""
        if self._expected is None or member.name == MANIFEST_FILE:
            return None
        wanted = self._expected.find(member.name)
        if wanted is None:
            raise CorruptObject(key, f"it brings {member.name}, which the manifest does not know")
        if wanted.size_bytes != member.size_bytes:
            raise CorruptObject(
                key, f"{member.name} has {member.size_bytes} bytes, the manifest says {wanted.size_bytes}"
            )
        return wanted

    # -- directories --------------------------------------------------------------------------------------------------

    def _make_directory(self, key: str, name: str, mode: int | None) -> None:
        """Make a directory and what is above it. ``mode`` None: it has no member of its own (yet)."""
        if name == FOLDER or name.startswith(f"{FOLDER}/"):
            return
        self._check_tablespace(key, name)
        path = self._directory
        for part in name.split("/") if name else []:
            path = path / part
            self._make_one(path)
        if mode is not None and not _is_tablespace(name):
            path.chmod(mode & 0o750 | 0o700)
        self._made.add(name)

    def _make_one(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            if not path.is_dir():
                raise RestoreError(f"{path} is a file and a directory in the backup") from None
            return
        except OSError as exc:
            raise disk_error(path, exc) from exc
        if self._owner is not None:
            os.chown(path, self._owner.uid, self._owner.gid)

    def _check_tablespace(self, key: str, name: str) -> None:
        parts = name.split("/", 2)
        if len(parts) > 1 and parts[0] == "pg_tblspc" and parts[1] not in self._tablespaces:
            raise CorruptObject(
                key,
                f"it brings files of tablespace {parts[1]}, which the backup's documents do not know",
                hint="Restore another backup, with --backup.",
            )


@dataclass
class _Attempt:
    """Reading one object once: what it has written, and which files it took."""

    key: str
    selection: Selection | None
    written: list[Path] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    member_bytes: int = 0

    def take(self, name: str) -> Part:
        if self.selection is None:
            return "whole"
        part = self.selection.take(self.key, name)
        if part != "none":
            self.taken.append(name)
        return part

    def undo(self) -> None:
        """The object will be read again. Pages that were put over a file stay: the same ones will come."""
        for path in self.written:
            path.unlink(missing_ok=True)
        if self.selection is not None:
            self.selection.give_back(self.taken)


def _is_tablespace(name: str) -> bool:
    return name.startswith("pg_tblspc/") and name.count("/") == 1


def _failed(future: Future[None]) -> BaseException | None:
    return future.exception() if future.done() and not future.cancelled() else None
