"""Find what a WAL file is stored as: who wrote the archive decided the compression, and with it the key's extension."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pgbackup.errors import ObjectMissing
from pgbackup.repository import keys
from pgbackup.storage.base import ByteStream, ObjectStore


def stored_keys(store: ObjectStore, name: str) -> list[str]:
    """The keys of the objects that hold a WAL file whole (a segment, a history, ...), one for each extension."""
    found = []
    for info in store.list(keys.WAL + name):
        if keys.wal_file(info.key)[0] == name:
            found.append(info.key)
    return found


@contextmanager
def open_stored(store: ObjectStore, name: str, extension: str) -> Iterator[tuple[str, ByteStream]]:
    """The key and the stored bytes of a WAL file; ``extension`` is tried first, then whatever a listing shows.

    Raises ObjectMissing on entry.
    """
    key = keys.wal(name, extension)
    with ExitStack() as stack:
        try:
            source = stack.enter_context(store.open_read(key))
        except ObjectMissing:
            key = next((other for other in stored_keys(store, name) if other != key), key)
            source = stack.enter_context(store.open_read(key))
        yield key, source
