"""The objects of a stored base backup: what to read, and in which order."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pgbackup.core.backup import Backup
from pgbackup.errors import CorruptObject, RestoreError
from pgbackup.repository import keys
from pgbackup.repository.backup_objects import missing_objects
from pgbackup.storage.base import ObjectStore

_PART = re.compile(r"^(?:part|copy)_\d+\.tar(?:\.[a-z0-9]*)?$")
_LAST = re.compile(r"^(?:pg_control|backup_label)\.tar(?:\.[a-z0-9]*)?$")


@dataclass(frozen=True, slots=True)
class BackupObjects:
    """Keys. ``parts`` can be read in any order and at once, ``last`` after them, the control file's very last.

    ``manifest`` is Postgres' own backup_manifest, None where the backup has none.
    """

    parts: tuple[str, ...]
    last: tuple[str, ...]
    manifest: str | None
    stored_bytes: int

    @classmethod
    def find(cls, store: ObjectStore, backup: Backup) -> BackupObjects:
        """List a backup's objects. Raises RestoreError for a folder that cannot be restored as it is."""
        folder = keys.tar_folder(backup.name)
        parts: list[tuple[int, str]] = []
        last: list[str] = []
        total = 0
        for info in store.list(folder):
            name = info.key.removeprefix(folder)
            if not name or (name.endswith("/") and not info.size_bytes):
                continue
            if not info.size_bytes:
                raise CorruptObject(info.key, "it is empty", hint="Restore another one, with --backup.")
            total += info.size_bytes
            if _PART.match(name) or (backup.engine == "wal-e" and ".tar" in name):
                parts.append((info.size_bytes, info.key))
            elif _LAST.match(name):
                last.append(info.key)
            else:
                raise RestoreError(
                    f"object {info.key} does not belong into a backup",
                    hint="Look what it is and move it away, or restore another backup.",
                )
        if not parts:
            raise RestoreError(
                f"backup {backup.name} has no data in {folder}", hint="Run `pgbackup list` and choose another backup."
            )
        manifest = _manifest(store, backup)
        if problem := missing_objects(store, backup):
            raise RestoreError(
                f"backup {backup.name} is not whole",
                detail=problem,
                hint=f"`pgbackup verify --backup {backup.name}` names every damaged object; `pgbackup list` shows "
                "what else can be restored.",
            )
        # Large ones first, so that the workers end at about the same time.
        ordered = tuple(key for _, key in sorted(parts, reverse=True))
        return cls(ordered, tuple(sorted(last)), manifest, total)


def _manifest(store: ObjectStore, backup: Backup) -> str | None:
    objects, _ = store.list_level(keys.backup_folder(backup.name))
    wanted = keys.manifest(backup.name, "")
    found = next((info for info in objects if keys.split_extension(info.key)[0] == wanted), None)
    if found is not None and not found.size_bytes:
        raise CorruptObject(found.key, "it is empty", hint="Restore another one, with --backup.")
    return found.key if found else None
