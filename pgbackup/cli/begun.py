"""A mistyped place is empty, and nothing that is said of it may sound good: no backups, no gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgbackup.errors import StorageError

if TYPE_CHECKING:
    from pgbackup.storage.base import ObjectStore


def require_begun(store: ObjectStore) -> None:
    """Raise StorageError where nothing at all is stored. For commands that have found nothing."""
    if next(iter(store.list()), None) is None:
        raise StorageError(
            f"there is no repository at {store.url}",
            detail="nothing at all is stored there",
            hint="Check PGBACKUP_REPOSITORY for a typing error; `pgbackup run` begins a new repository.",
        )
