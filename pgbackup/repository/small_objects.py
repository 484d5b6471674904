"""Fetch an object that is small when it is genuine, without believing that it is: anybody may have put it there."""

from __future__ import annotations

from typing import Final

from pgbackup.errors import CorruptObject, ObjectMissing
from pgbackup.repository import keys
from pgbackup.repository.backup_reader import is_wal_e
from pgbackup.storage.base import ObjectStore

MAX_METADATA_BYTES: Final = 4 << 20
"""metadata.json has about 600 bytes, what the user added to it, and ten for each part of 256 MiB."""

_MAX_VERSION_BYTES: Final = 1000


def fetch_small(store: ObjectStore, key: str, most_bytes: int) -> bytes:
    """The whole object. Raises ObjectMissing, what the store raises, and CorruptObject when it is larger."""
    parts, size = [], 0
    with store.open_read(key) as stream:
        while data := stream.read(most_bytes + 1 - size):
            parts.append(data)
            size += len(data)
            if size > most_bytes:
                raise CorruptObject(key, f"it has more than {most_bytes} bytes")
    return b"".join(parts)


def fetch_metadata(store: ObjectStore, backup: str) -> bytes:
    """metadata.json of a backup; raises as ``fetch_small``."""
    return fetch_small(store, keys.metadata(backup), MAX_METADATA_BYTES)


def fetch_version_text(store: ObjectStore, backup: str) -> str:
    """The beginning of what WAL-E noted of the server's version; empty for a backup that is not WAL-E's."""
    if not is_wal_e(backup):
        return ""
    try:
        with store.open_read(keys.extended_version(backup)) as stream:
            return stream.read(_MAX_VERSION_BYTES).decode("utf-8", "replace")
    except ObjectMissing:
        return ""
