"""Fetch a sentinel in bounded memory: WAL-G before version 1 listed every file of the backup in it."""

from __future__ import annotations

import json
from typing import Final

from pgbackup.repository.walg_files import without_lists
from pgbackup.storage.base import ObjectInfo, ObjectStore

LARGE_BYTES: Final = 1 << 20
"""Ours have some kilobytes; larger ones are read without their lists of files."""


def fetch_sentinel(store: ObjectStore, info: ObjectInfo) -> bytes:
    """The document of a sentinel that a listing showed. Raises ObjectMissing, CorruptObject, what the store raises."""
    if info.size_bytes <= LARGE_BYTES:
        return store.get(info.key)
    with store.open_read(info.key) as stream:
        return json.dumps(without_lists(info.key, stream)).encode()
