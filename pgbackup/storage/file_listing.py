"""Listing a folder tree in the order of keys, with one folder in memory per level of depth.

Sorted by name alone, ``a/1`` would come before ``a.zst``; so a folder sorts with its ``/``. Symbolic links and other
special files are not shown, nor is the hidden folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pgbackup.storage.base import ObjectInfo
from pgbackup.storage.disk import HIDDEN


def is_key(key: str) -> bool:
    """Whether a key names a place below the root, and not the hidden folder."""
    names = key.split("/")
    return names[0] != HIDDEN and not any(name in ("", ".", "..") or "\0" in name for name in names)


def walk(root: Path, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
    """Every object that begins with ``prefix`` and sorts after ``start_after``, in order of key."""
    folder = prefix.rpartition("/")[0]
    if not folder or is_key(folder):
        yield from _walk(root, f"{folder}/" if folder else "", prefix, start_after)


def level(root: Path, prefix: str) -> tuple[list[ObjectInfo], list[str]]:
    """The objects and the folders directly below ``prefix``; folders without any object do not exist."""
    objects: list[ObjectInfo] = []
    folders: list[str] = []
    if prefix and not is_key(prefix.rstrip("/")):
        return objects, folders
    for name, entry in _entries(root, prefix):
        key = prefix + name
        if not name.endswith("/"):
            objects.extend(_object(key, entry))
        elif next(walk(root, key), None) is not None:
            folders.append(key)
    return objects, folders


def info(key: str, status: os.stat_result) -> ObjectInfo:
    """The etag changes with every write: a new file has another inode, and another time."""
    etag = f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
    return ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC), etag)


def _walk(root: Path, folder: str, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
    for name, entry in _entries(root, folder):
        key = folder + name
        if name.endswith("/"):
            wanted = key.startswith(prefix) or prefix.startswith(key)
            if wanted and (key > start_after or start_after.startswith(key)):
                yield from _walk(root, key, prefix, start_after)
        elif key.startswith(prefix) and key > start_after:
            yield from _object(key, entry)


def _entries(root: Path, folder: str) -> list[tuple[str, os.DirEntry[str]]]:
    """(name, entry) in order; the name of a folder ends in ``/``."""
    found = []
    try:
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if folder or entry.name != HIDDEN:
                        found.append((entry.name + "/", entry))
                elif entry.is_file(follow_symlinks=False):
                    found.append((entry.name, entry))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda one: one[0])


def _object(key: str, entry: os.DirEntry[str]) -> Iterator[ObjectInfo]:
    """The object, unless it was deleted since its folder was read."""
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISREG(status.st_mode):
        yield info(key, status)
