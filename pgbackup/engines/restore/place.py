"""The directories that a restore fills: refused unless free, marked while they are filled, cleaned when repeated.

A marker file lies in each of them from the first write on, and the control file, without which no server starts, has a
temporary name until everything else is verified and on the disk. A directory with the marker (or that temporary name)
and without a control file is what an interrupted restore left: the next one empties it. Anything else that is not
empty is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pgbackup.core.backup import CONTROL_FILE, Tablespace
from pgbackup.errors import RestoreError
from pgbackup.postgres.data_directory import Owner, make_directory, running_server
from pgbackup.storage.disk import flush_folder

MARKER = ".pgbackup-restore"
CONTROL_TEMPORARY = CONTROL_FILE + ".pgbackup"
_NEVER_OURS = frozenset({"lost+found"})
_SLACK_BYTES = 64 << 20


@dataclass(frozen=True)
class RestorePlace:
    """Where a restore goes: the data directory, and a directory for each tablespace (by OID). Paths are absolute."""

    directory: Path
    tablespaces: Mapping[int, Path] = field(default_factory=dict)

    @property
    def all_directories(self) -> list[Path]:
        return [self.directory, *self.tablespaces.values()]

    def check(self) -> None:
        """Raise RestoreError unless every directory may be filled. Writes nothing."""
        if found := running_server(self.directory):
            raise RestoreError(
                f"a server is running in {self.directory}",
                detail=found,
                hint="Stop it, and restore into another directory; compare before you remove the old one.",
            )
        for directory in self.all_directories:
            _check_free(directory, is_data=directory == self.directory)
        _check_apart(self.all_directories)

    def check_space(self, needed: Mapping[Path, int]) -> None:
        """Raise RestoreError when a file system has less free space than its directories need (bytes)."""
        by_device: dict[int, tuple[int, int, list[Path]]] = {}
        for directory, size in needed.items():
            existing = nearest_existing(directory)
            device = existing.stat().st_dev
            _, total, paths = by_device.get(device, (0, 0, []))
            by_device[device] = (_free_bytes(existing), total + size, [*paths, directory])
        for free, total, paths in by_device.values():
            if total + _SLACK_BYTES > free + _reclaimable_bytes(paths):
                raise RestoreError(
                    f"not enough space for {', '.join(map(str, paths))}",
                    detail=f"{_size(total + _SLACK_BYTES, up=True)} needed ({_size(_SLACK_BYTES)} of it to spare), "
                    f"{_size(free)} free",
                    hint="Free space, restore elsewhere, use --wal on-demand, or choose a newer --backup.",
                )

    def claim(self, backup: str) -> Claim:
        """Make, empty and mark the directories; nobody else can claim them while the result is open."""
        owner = Owner.of(self.directory)
        for directory in self.all_directories:
            make_place(directory, owner)
        # Every directory is marked before any is emptied, and stays locked: a tablespace may be another restore's.
        descriptors: list[int] = []
        claim = Claim(self, owner, descriptors)
        try:
            for directory in self.all_directories:
                descriptors.append(_mark(directory, self, backup))
            for directory in self.all_directories:
                _empty(directory)
        except BaseException:
            claim.close()
            raise
        return claim


@dataclass(frozen=True)
class Claim:
    """Directories that this process fills; ``owner`` is whom the files are for."""

    place: RestorePlace
    owner: Owner | None
    descriptors: list[int]

    def release(self) -> None:
        """Everything else is there, verified and on the disk: give the control file its name.

        The markers of tablespaces go after it: until then an interrupted restore can be repeated, and Postgres does not
        mind them.
        """
        _unmark(self.place.directory)
        control = self.place.directory / CONTROL_TEMPORARY
        control.replace(self.place.directory / CONTROL_FILE)
        flush_folder(control.parent)
        for location in self.place.tablespaces.values():
            _unmark(location)

    def close(self) -> None:
        while self.descriptors:
            os.close(self.descriptors.pop())


def map_tablespaces(tablespaces: Sequence[Tablespace], mapping: Mapping[str, str]) -> dict[int, Path]:
    """OID -> directory. ``mapping``: the original location or the OID as text -> the new, absolute location.

    Raises RestoreError for a mapping of a tablespace that is not there, or to a path that is not absolute.
    """
    wanted = {key.rstrip("/") or key: value for key, value in mapping.items()}
    found: dict[int, Path] = {}
    for tablespace in tablespaces:
        original = tablespace.location.rstrip("/")
        new = wanted.pop(str(tablespace.oid), None) or wanted.pop(original, None) or original
        if not new.startswith("/"):
            raise RestoreError(
                f"tablespace {tablespace.oid} cannot go to {new!r}", hint="Give an absolute path in --tablespace-map."
            )
        found[tablespace.oid] = Path(os.path.normpath(new))
    if wanted:
        known = ", ".join(f"{t.oid} ({t.location})" for t in tablespaces) or "none"
        raise RestoreError(
            f"the backup has no tablespace {next(iter(wanted))}",
            hint=f"Its tablespaces are: {known}. One that is younger than the backup cannot be mapped: recovery makes "
            "it in its old place.",
        )
    return found


def nearest_existing(directory: Path) -> Path:
    while not directory.exists():
        directory = directory.parent
    return directory


def is_left_over(directory: Path) -> bool:
    """Whether a directory is what an interrupted restore left.

    A tablespace's marker outlives its cluster's by a moment; once that cluster is complete, it is no left-over.
    """
    if (directory / CONTROL_FILE).exists():
        return False
    marker = _read_marker(directory / MARKER)
    if marker is None:
        return (directory / CONTROL_TEMPORARY).is_file()
    cluster = marker.get("directory")
    return not (isinstance(cluster, str) and (Path(cluster) / CONTROL_FILE).exists())


def _read_marker(marker: Path) -> dict[str, object] | None:
    """What a marker says; None for one that is not there, or that nobody has written into yet."""
    try:
        data = marker.read_bytes()
        found = json.loads(data)
    except OSError:
        return None
    except ValueError:
        return {} if data else None
    return found if isinstance(found, dict) else {}


def _check_free(directory: Path, *, is_data: bool) -> None:
    if not directory.exists():
        existing = nearest_existing(directory)
        problem = "is no directory" if not existing.is_dir() else "is not writable"
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise RestoreError(
                f"{directory} cannot be made", detail=f"{existing} {problem}", hint="Make it, or choose another."
            )
        return
    if not directory.is_dir():
        raise RestoreError(
            f"{directory} is not a directory", hint="Choose a directory that is empty or does not exist."
        )
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise RestoreError(f"{directory} is not writable", hint="Run the restore as its owner or as root.")
    _check_content(directory, is_data=is_data)


def _check_content(directory: Path, *, is_data: bool) -> None:
    content = content_of(directory)
    if content and not is_left_over(directory):
        what = "--target" if is_data else "--tablespace-map (of backup-fetch: --restore-spec)"
        raise RestoreError(
            f"{directory} is not empty",
            detail=f"it holds {', '.join(content[:3])}{', ...' if len(content) > 3 else ''}",
            hint=f"Nothing is ever overwritten: choose an empty directory with {what}, or empty this one.",
        )


def content_of(directory: Path) -> list[str]:
    """The names in a directory that mean that it is not empty. Raises OSError."""
    return sorted({path.name for path in directory.iterdir()} - _NEVER_OURS - {MARKER})


def _check_apart(directories: Iterable[Path]) -> None:
    """No directory may lie in another one, or be it."""
    resolved = [Path(os.path.realpath(directory)) for directory in directories]
    for number, one in enumerate(resolved):
        for other in resolved[number + 1 :]:
            if one.is_relative_to(other) or other.is_relative_to(one):
                raise RestoreError(
                    f"{one} and {other} lie in each other", hint="Give each tablespace a directory of its own."
                )


def make_place(directory: Path, owner: Owner | None) -> None:
    """Make a directory for a server, and what is missing above it. Raises RestoreError."""
    try:
        # Also what is missing above it: a server that may not pass there does not start.
        missing = [parent for parent in directory.parents if not parent.exists()]
        for parent in reversed(missing):
            make_directory(parent, owner, 0o755)
        make_directory(directory, owner)
        directory.chmod(0o700)
    except OSError as exc:
        raise RestoreError(f"{directory} cannot be made", detail=exc.strerror or str(exc), hint=_AS_OWNER) from exc


def _mark(directory: Path, place: RestorePlace, backup: str) -> int:
    """Lock the marker, look once more whether the directory is free, and write it; returns its descriptor.

    Raises RestoreError when another restore holds the marker, or when the directory has been filled meanwhile.
    """
    marker = directory / MARKER
    descriptor = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _lock(descriptor, marker)
        try:
            _check_content(directory, is_data=directory == place.directory)
        except RestoreError:
            if not os.fstat(descriptor).st_size:
                marker.unlink()
            raise
    except BaseException:
        os.close(descriptor)
        raise
    tablespaces = place.tablespaces if directory == place.directory else {}
    document = {
        "format": 1,
        "backup": backup,
        "begun": datetime.now(UTC).isoformat(),
        "directory": str(place.directory),
        "tablespaces": {str(oid): str(path) for oid, path in tablespaces.items()},
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(document).encode(), 0)
    os.fsync(descriptor)
    flush_folder(directory)
    return descriptor


def _lock(descriptor: int, marker: Path) -> None:
    """Raises RestoreError when another restore holds the marker, or has removed this one: it has just ended."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_there = os.path.samestat(os.fstat(descriptor), marker.stat(follow_symlinks=False))
    except (BlockingIOError, FileNotFoundError):
        is_there = False
    if not is_there:
        raise RestoreError(
            f"another restore is filling {marker.parent}", hint="Wait for it, or choose another directory."
        )


def _unmark(directory: Path) -> None:
    (directory / MARKER).unlink(missing_ok=True)
    flush_folder(directory)


def _empty(directory: Path) -> None:
    """Remove what an interrupted restore left, except the marker."""
    for path in list(directory.iterdir()):
        if path.name in _NEVER_OURS or path.name == MARKER:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _free_bytes(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _reclaimable_bytes(directories: Iterable[Path]) -> int:
    """Space that left-overs take, which are removed before anything is written."""
    total = 0
    for directory in directories:
        if is_left_over(directory):
            for folder, _, files in os.walk(directory):
                total += sum(os.lstat(Path(folder, name)).st_blocks * 512 for name in files)
    return total


def _size(size: int, *, up: bool = False) -> str:
    """A size that does not look like another one: in MiB up to some GiB, rounded away from that other one."""
    unit, name = (1 << 20, "MiB") if size < 20 << 30 else (1 << 30, "GiB")
    return f"{-(-size // unit) if up else size // unit} {name}"


_AS_OWNER = "Run the restore as the owner of the directory above it, or as root."
