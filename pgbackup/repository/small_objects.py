"""Fetch an object that is small when it is genuine, without believing that it is: anybody may have put it there."""

from __future__ import annotations

from typing import Final

from pgbackup.errors import CorruptObject
from pgbackup.repository import keys
from pgbackup.storage.base import ObjectStore

MAX_METADATA_BYTES: Final = 4 << 20
"""metadata.json has about 600 bytes and what the user added to it."""


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
