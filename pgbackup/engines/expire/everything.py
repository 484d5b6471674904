"""Remove a whole repository: every backup, all WAL, the bookkeeping. For `pgbackup delete everything FORCE` only.

Seals go first, bookkeeping last: until the end the prefix says whose it is. Whatever else lies below the prefix is not
ours and stays. It is refused while a process holds the lease, for that one would go on writing into the emptied place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from pgbackup.engines.expire.expire import ExpiryRequest
from pgbackup.engines.expire.objects import ExpiryStopped, Removed, Remover
from pgbackup.engines.presence.lease import Lease
from pgbackup.errors import CheckFailed
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.storage.base import ObjectInfo, ObjectStore

_QUIET = timedelta(hours=2)
"""On an idle server WAL moves once an hour, and the lease with it."""
_FOLDERS = (keys.BASEBACKUPS, keys.WAL, keys.BOOKKEEPING)


@dataclass(frozen=True)
class Everything:
    """What there is to remove; ``restorable`` and ``permanent`` are names of backups."""

    objects: int
    bytes: int
    restorable: tuple[str, ...]
    permanent: tuple[str, ...]


def look_at_everything(request: ExpiryRequest) -> Everything:
    """Count what would go. Writes nothing."""
    catalog = read_catalog(request.store, request.codec, with_marks=False)
    sizes = [info.size_bytes for info in _objects(request.store)]
    return Everything(
        len(sizes),
        sum(sizes),
        tuple(b.name for b in catalog.backups if not catalog.why_not_restorable(b)),
        tuple(b.name for b in catalog.backups if b.permanent),
    )


def remove_everything(request: ExpiryRequest) -> tuple[Removed, str]:
    """Remove all of it; returns what went, and why it ended early (empty: it did not).

    Raises CheckFailed while somebody holds the lease.
    """
    store = request.store
    if (holder := Lease(store, writer="", host="").holder(_QUIET)) is not None:
        raise CheckFailed(
            f"pgbackup runs for this repository on host {holder.host}, or did until lately",
            hint="Stop `pgbackup run`: it would go on writing into the emptied prefix. One that was killed elsewhere "
            f"counts as running for {_QUIET.total_seconds() / 3600:.0f} h.",
        )
    remover = Remover(store, request.stop, lambda: True)
    try:
        kept = remover.remove(info for info in _objects(store) if info.key.endswith(keys.SENTINEL_SUFFIX))
        if kept:
            # A seal without its backup would be worse than a backup that nobody wants.
            return remover.removed, "the store keeps the seals of backups, so these and all WAL stay"
        remover.remove(_objects(store))
    except ExpiryStopped as reason:
        return remover.removed, str(reason)
    return remover.removed, ""


def _objects(store: ObjectStore) -> Iterator[ObjectInfo]:
    for folder in _FOLDERS:
        yield from store.list(folder)
