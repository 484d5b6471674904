"""What ``backup-list`` shows: the sealed backups as WAL-G lists them, from names and documents alone.

A backup is a seal, its time is the seal's in the store, and its details are those of metadata.json. So no key is needed
and nothing is decoded. Where metadata.json is missing (WAL-E writes none), the details come from the seal and the name,
for one such backup must not hide all others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pgbackup.core.backup import Backup
from pgbackup.errors import CorruptObject, ObjectMissing
from pgbackup.repository import keys
from pgbackup.repository.backup_reader import read_backup
from pgbackup.repository.documents import DATE_FORMAT
from pgbackup.repository.json_object import parse_object
from pgbackup.repository.sentinels import fetch_sentinel
from pgbackup.repository.small_objects import fetch_metadata, fetch_version_text
from pgbackup.storage.base import ObjectInfo, ObjectStore

STORAGE = "default"
_SEGMENT = re.compile(r"[0-9A-F]{24}")
_NO_SEGMENT = "Z" * 24
_DETAILS = (
    "start_time", "finish_time", "date_fmt", "hostname", "data_dir", "pg_version", "start_lsn", "finish_lsn",
    "is_permanent", "system_identifier", "uncompressed_size", "compressed_size", "user_data",
)  # fmt: skip


@dataclass(frozen=True)
class ListedBackup:
    """``modified``: the seal's time in the store; ``details``: the fields of metadata.json, None unless asked for."""

    name: str
    modified: datetime
    details: dict[str, Any] | None = None

    @property
    def segment(self) -> str:
        """The first run of 24 digits in the name, as WAL-G finds it."""
        match = _SEGMENT.search(self.name)
        return match[0] if match else _NO_SEGMENT

    def document(self) -> dict[str, Any]:
        """The object of ``backup-list --json``."""
        head = {
            "backup_name": self.name,
            "time": go_time(self.modified),
            "wal_file_name": self.segment,
            "storage_name": STORAGE,
        }
        return {**head, **(self.details or {})}


def list_backups(store: ObjectStore, *, details: bool, only: str = "") -> list[ListedBackup]:
    """The backups in WAL-G's order: by age of the seal, with details by start where all are known.

    ``only``: a name, or ``LATEST``; no such backup is an empty list.
    """
    infos, _ = store.list_level(keys.BASEBACKUPS)
    seals = sorted((info for info in infos if info.key.endswith(keys.SENTINEL_SUFFIX)), key=lambda info: info.modified)
    if only:
        seals = seals[-1:] if only == "LATEST" else [info for info in seals if _name(info) == only]
    if not details:
        return [ListedBackup(_name(info), info.modified) for info in seals]
    found = list(_detailed(store, seals))
    starts = {backup.name: _moment(backup) for backup in found}
    if all(starts.values()):
        found.sort(key=lambda backup: starts[backup.name] or backup.modified)
    return found


def go_time(moment: datetime) -> str:
    """RFC 3339 as Go prints it: in UTC, the fraction without zeros at its end."""
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return f"{text.rstrip('0').rstrip('.')}Z"


def _moment(backup: ListedBackup) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str((backup.details or {}).get("start_time")))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _name(info: ObjectInfo) -> str:
    return info.key.removeprefix(keys.BASEBACKUPS).removesuffix(keys.SENTINEL_SUFFIX)


def _detailed(store: ObjectStore, seals: list[ObjectInfo]) -> Iterator[ListedBackup]:
    for info in seals:
        name = _name(info)
        try:
            details = _from_metadata(store, name) or _from_seal(store, name, info)
        except ObjectMissing:
            continue  # deleted since it was listed
        yield ListedBackup(name, info.modified, details)


def _from_metadata(store: ObjectStore, name: str) -> dict[str, Any] | None:
    """The fields of metadata.json, or None where it is missing or cannot be read."""
    try:
        document = parse_object(keys.metadata(name), fetch_metadata(store, name))
    except (ObjectMissing, CorruptObject):
        return None
    return {field: _as_printed(field, document[field]) for field in _DETAILS if field in document}


def _as_printed(field: str, value: object) -> object:
    """A time as Go prints what it has read, in its own zone where that is not UTC."""
    if field.endswith("_time") and isinstance(value, str):
        with suppress(ValueError):
            moment = datetime.fromisoformat(value)
            return go_time(moment) if moment.utcoffset() == timedelta(0) else value
    return value


def _from_seal(store: ObjectStore, name: str, info: ObjectInfo) -> dict[str, Any]:
    try:
        seal = fetch_sentinel(store, info)
    except CorruptObject:
        return {}
    return _described(read_backup(name, info.modified, seal, None, fetch_version_text(store, name)).backup)


def _described(backup: Backup) -> dict[str, Any]:
    if backup.finished.year <= 1970:
        return {}
    return {
        "start_time": go_time(backup.started),
        "finish_time": go_time(backup.finished),
        "date_fmt": DATE_FORMAT,
        "hostname": backup.hostname,
        "data_dir": backup.data_directory,
        "pg_version": backup.pg_version,
        "start_lsn": int(backup.start_lsn),
        "finish_lsn": int(backup.stop_lsn),
        "is_permanent": backup.permanent,
        "system_identifier": backup.system_identifier or None,
        "uncompressed_size": backup.raw_bytes,
        "compressed_size": backup.stored_bytes,
    }


def to_json(backups: list[ListedBackup], *, indent: int | None) -> str:
    """One line, or indented."""
    documents = [backup.document() for backup in backups]
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(documents, indent=indent, separators=separators, ensure_ascii=False)
