"""From a repository URL to a store."""

from __future__ import annotations

from collections.abc import Callable

from pgbackup.config.store_connection import StoreConnection
from pgbackup.errors import ConfigError
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.limited import LimitedStore, RateLimiter


def open_store(url: str, *, upload_rate: int | None = None, connection: StoreConnection | None = None) -> ObjectStore:
    """The store of ``s3://bucket/prefix`` or ``file:///path``, its uploads limited to ``upload_rate`` bytes per second.

    ``connection``: how S3 is reached, where boto3's own variables do not say it.
    Raises ConfigError for a URL that is neither. Nothing is asked of the store yet.
    """
    store = _open(url, connection or StoreConnection())
    return store if upload_rate is None else LimitedStore(store, RateLimiter(upload_rate))


def object_flusher(url: str) -> Callable[[str], None] | None:
    """What makes an object durable that another program stored, by its key; None where a listed object is durable."""
    if not url.startswith("file:"):
        return None
    from pgbackup.storage.disk import flush_file_of_others
    from pgbackup.storage.file import folder_of

    root = folder_of(url)
    return lambda key: flush_file_of_others(root, key)


def _open(url: str, connection: StoreConnection) -> ObjectStore:
    scheme, mark, _ = url.partition("://")
    if mark and scheme == "s3":
        # Here, not above: boto3 takes 0.3 s and 34 MB, which a file repository need not pay.
        from pgbackup.storage.s3 import S3Store
        from pgbackup.storage.s3_client import S3Options

        return S3Store(url, options=S3Options(connection=connection))
    if mark and scheme == "file":
        from pgbackup.storage.file import FileStore

        return FileStore(url)
    # What stands before :// is shown, the rest may hold a password.
    found = f"it begins with {scheme}://" if mark else "it has no ://"
    raise ConfigError(
        "the repository URL is not understood", detail=found, hint="Write s3://bucket/prefix or file:///path."
    )
