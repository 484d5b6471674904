"""Whether the objects of a sealed backup are all there, as one listing of its folder shows.

The seal says how many bytes were stored, and parts are numbered from 1: what somebody deleted behind our back is seen
without reading anything.
"""

from __future__ import annotations

import re
from dataclasses import replace

from pgbackup.core.catalog import Backup, Catalog
from pgbackup.repository import keys
from pgbackup.storage.base import ObjectStore

_PART = re.compile(r"part_(\d+)\.tar")
_NAMED = 3


def missing_objects(store: ObjectStore, backup: Backup) -> str:
    """What is missing of a backup, for people; empty when all is there. Of other tools' backups only pg_control counts.

    Raises what the store raises.
    """
    listed = {info.key: info.size_bytes for info in store.list(keys.backup_folder(backup.name))}
    folder = keys.tar_folder(backup.name)
    sizes = {key.removeprefix(folder): size for key, size in listed.items() if key.startswith(folder)}
    if not any(name.startswith("pg_control.tar") and size for name, size in sizes.items()):
        return "its pg_control.tar is missing" if backup.engine == "pgbackup" else ""
    if backup.engine != "pgbackup":
        return ""
    manifest = keys.manifest(backup.name, "")
    if not any(keys.split_extension(key)[0] == manifest and size for key, size in listed.items()):
        return f"its {manifest} is missing or empty, so nobody can say whether its files are all there"
    if backup.stored_bytes in (0, sum(sizes.values())):
        return ""  # 0: the seal does not say it
    numbers = {int(match[1]) for name in sizes if (match := _PART.match(name)) is not None}
    lost = sorted(set(range(1, max(numbers, default=0) + 1)) - numbers)
    named = f": part {', '.join(map(str, lost[:_NAMED]))} is missing" if lost else ""
    return f"its parts hold {sum(sizes.values())} bytes, not {backup.stored_bytes}{named}"


def with_missing_objects(store: ObjectStore, catalog: Catalog, *, newest_only: bool = False) -> Catalog:
    """The catalog in which a backup that is not whole has that as its problem: a LIST for each backup looked at."""
    restorable = [backup for backup in catalog.backups if not catalog.why_not_restorable(backup)]
    if newest_only:
        restorable = sorted(restorable, key=lambda backup: backup.finished)[-1:]
    problems = {backup.name: missing_objects(store, backup) for backup in restorable}
    backups = tuple(replace(b, problem=b.problem or problems.get(b.name, "")) for b in catalog.backups)
    return replace(catalog, backups=backups)
