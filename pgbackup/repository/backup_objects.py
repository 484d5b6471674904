"""Whether the objects of a sealed backup are all there, as a listing of its folder shows.

The seal says how many bytes were stored, and parts are numbered (ours and WAL-G's from 1, where WAL-G may leave gaps,
WAL-E's from 0): what somebody deleted behind our back is seen without reading anything. One listing shows the folders
of all backups; memory: the keys of one of them at a time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.repository import keys
from pgbackup.repository.part_sizes import changed_parts
from pgbackup.storage.base import ObjectInfo, ObjectStore

_PART = re.compile(r"part_(\d+)\.tar")
_DATA = re.compile(r"(?:part|copy)_\d+\.tar")
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Folder:
    """What of a backup's folder never changes once it is sealed: how many objects, their bytes, and a digest of their
    names, sizes and etags that does not depend on the order."""

    objects: int = 0
    bytes: int = 0
    digest: int = 0

    def with_object(self, info: ObjectInfo) -> Folder:
        """With one more object; documents do not count, which other tools rewrite (to mark a backup permanent)."""
        if info.key.endswith(".json"):
            return self
        return Folder(self.objects + 1, self.bytes + info.size_bytes, self.digest ^ fingerprint(info))


def fingerprint(info: ObjectInfo) -> int:
    """64 bits of an object's key, size and etag."""
    text = f"{info.key}\0{info.size_bytes}\0{info.etag}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def missing_objects(store: ObjectStore, backup: Backup) -> str:
    """What is missing of a backup, for people; empty when all is there. Raises what the store raises."""
    return _problem(store, {info.key: info.size_bytes for info in store.list(keys.backup_folder(backup.name))}, backup)


def with_missing_objects(store: ObjectStore, catalog: Catalog) -> Catalog:
    """The catalog in which a backup that is not whole has that as its problem. Raises what the store raises."""
    return with_folders(store, catalog)[0]


def with_folders(store: ObjectStore, catalog: Catalog) -> tuple[Catalog, dict[str, Folder]]:
    """The same, and what the folder of each backup holds: one listing for all of them."""
    wanted = {backup.name: backup for backup in catalog.backups}
    folders, problems = {name: Folder() for name in wanted}, dict.fromkeys(wanted, "")
    seen = set()
    for name, infos in _by_folder(store.list(keys.BASEBACKUPS)):
        if name not in wanted:
            continue
        seen.add(name)
        sizes = {}
        for info in infos:
            folders[name] = folders[name].with_object(info)
            sizes[info.key] = info.size_bytes
        problems[name] = _problem(store, sizes, wanted[name])
    for name in wanted.keys() - seen:
        problems[name] = _missing({}, wanted[name])
    # Expiry removes the seal first: whose seal is gone by now is a backup that is being removed, not a damaged one.
    gone = {name for name, problem in problems.items() if problem and store.head(keys.sentinel(name)) is None}
    backups = tuple(replace(b, problem=b.problem or problems[b.name]) for b in catalog.backups if b.name not in gone)
    return replace(catalog, backups=backups), folders


def _by_folder(infos: Iterable[ObjectInfo]) -> Iterator[tuple[str, Iterator[ObjectInfo]]]:
    """The objects below ``basebackups_005/`` by their backup; what lies in no folder (the seals) is left out."""
    inside = (info for info in infos if "/" in info.key.removeprefix(keys.BASEBACKUPS))
    yield from groupby(inside, key=lambda info: info.key.removeprefix(keys.BASEBACKUPS).partition("/")[0])


def _problem(store: ObjectStore, listed: Mapping[str, int], backup: Backup) -> str:
    """What is missing; the keys of the parts that are not as they were stored, where that is known."""
    problem = _missing(listed, backup)
    return (problem and backup.engine == "pgbackup" and changed_parts(store, backup, listed)) or problem


def _missing(listed: Mapping[str, int], backup: Backup) -> str:
    folder = keys.tar_folder(backup.name)
    sizes = {key.removeprefix(folder): size for key, size in listed.items() if key.startswith(folder)}
    if backup.engine not in ("pgbackup", "wal-g", "wal-e"):
        return ""
    if backup.engine == "wal-e":
        return _missing_of_wal_e(sizes)
    if not any(name.startswith("pg_control.tar") and size for name, size in sizes.items()):
        return "its pg_control.tar is missing"
    if backup.engine != "pgbackup":
        is_there = any(_DATA.match(name) and size for name, size in sizes.items())
        return "" if is_there else "it has no data in tar_partitions"
    manifest = keys.manifest(backup.name, "")
    if not any(keys.split_extension(key)[0] == manifest and size for key, size in listed.items()):
        return f"its {manifest} is missing or empty, so nobody can say whether its files are all there"
    if backup.stored_bytes in (0, sum(sizes.values())):
        return ""  # 0: the seal does not say it
    numbers = {int(match[1]) for name in sizes if (match := _PART.match(name)) is not None}
    lost = sorted(set(range(1, max(numbers, default=0) + 1)) - numbers)
    named = f": part {', '.join(map(str, lost[:_NAMED]))} is missing" if lost else ""
    return f"its parts hold {sum(sizes.values())} bytes, not {backup.stored_bytes}{named}"


def _missing_of_wal_e(sizes: Mapping[str, int]) -> str:
    numbers = {int(match[1]) for name, size in sizes.items() if size and (match := _PART.match(name)) is not None}
    if not numbers:
        return "it has no data in tar_partitions"
    lost = sorted(set(range(max(numbers))) - numbers)
    return f"part {', '.join(map(str, lost[:_NAMED]))} is missing" if lost else ""
