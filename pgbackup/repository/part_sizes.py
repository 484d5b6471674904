"""The size of each stored part, beside the sum that the seal has: so that the part that is not as it was can be named.

They lie in metadata.json, which is read for this only when the sum is wrong. Backups of before have no such list, and
`wal-g backup-mark` writes the document anew without it: then there is only the sum.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pgbackup.core.backup import Backup
from pgbackup.errors import CorruptObject, ObjectMissing
from pgbackup.repository import keys
from pgbackup.repository.documents import PART_SIZES_KEY, parse_object
from pgbackup.repository.small_objects import fetch_metadata
from pgbackup.storage.base import ObjectStore

_PART: Final = re.compile(r"/part_(\d+)\.tar")
_NAMED: Final = 3


def part_sizes(objects: Mapping[str, int]) -> list[int]:
    """Of the objects of a backup, by key: the sizes of its numbered parts, in the order of their numbers."""
    parts = {int(match[1]): size for key, size in objects.items() if (match := _PART.search(key)) is not None}
    return [size for _, size in sorted(parts.items())]


def changed_parts(store: ObjectStore, backup: Backup, listed: Mapping[str, int]) -> str:
    """Which tars of ``listed`` (the backup's keys and sizes) are not as they were stored, for people; empty when nobody
    can say. Raises what the store raises."""
    wanted = _noted_sizes(store, backup)
    if not wanted:
        return ""
    found = {_tar(key): (key, size) for key, size in listed.items() if key.startswith(keys.tar_folder(backup.name))}
    problems = []
    for tar, size in wanted.items():
        key, there = found.pop(tar, (tar, None))
        if there is None:
            problems.append(f"{key} is missing")
        elif there != size:
            problems.append(f"{key} has {there} bytes, not {size}")
    problems += [f"{key} is not of this backup" for key, _ in found.values()]
    more = len(problems) - _NAMED
    return "; ".join(problems[:_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _noted_sizes(store: ObjectStore, backup: Backup) -> dict[str, int]:
    """The size of every tar by its key without the compression's extension; empty where they are not known."""
    try:
        noted = parse_object(keys.metadata(backup.name), fetch_metadata(store, backup.name)).get(PART_SIZES_KEY)
    except (CorruptObject, ObjectMissing):
        return {}
    if not isinstance(noted, list) or not all(type(size) is int and size > 0 for size in noted):
        return {}
    sizes = {keys.part(backup.name, number, ""): size for number, size in enumerate(noted, start=1)}
    control = backup.stored_bytes - sum(noted)
    return {**sizes, keys.control_tar(backup.name, ""): control} if control > 0 else {}


def _tar(key: str) -> str:
    return keys.split_extension(key)[0]
