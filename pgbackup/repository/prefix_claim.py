"""One cluster, and one key, for each prefix: checked before the first write.

``cluster.json`` says whose the prefix is. Where it is missing, what another tool left there decides: the system
identifiers of the sentinels, and that in the first page of a stored segment. Whatever cannot be read there is refused:
unknown is not ours.
"""

from __future__ import annotations

from pgbackup.core.lsn import is_segment_name
from pgbackup.core.wal_page import LONG_HEADER_BYTES, parse_first_page
from pgbackup.errors import ConfigError, CorruptObject, ObjectMissing, WrongCluster
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, is_readable
from pgbackup.repository.documents import ClusterDocument
from pgbackup.repository.json_object import JsonObject
from pgbackup.repository.key_check import check_key
from pgbackup.repository.sentinels import fetch_sentinel
from pgbackup.repository.stored_content import check_readable
from pgbackup.storage.base import ObjectStore

_SENTINELS_READ = 3
_NAMES_LOOKED_AT = 1000


def read_cluster(store: ObjectStore) -> ClusterDocument | None:
    """Which cluster the prefix was claimed for, or None. Raises CorruptObject."""
    try:
        return ClusterDocument.decode(keys.CLUSTER, store.get(keys.CLUSTER))
    except ObjectMissing:
        return None


def claim_prefix(store: ObjectStore, cluster: ClusterDocument, codec: Codec) -> None:
    """Make sure that the prefix belongs to this cluster and this key, before the first write.

    Raises WrongCluster when another cluster's backups or WAL are there, ConfigError when the encryption key is not the
    one that the repository was begun with, StorageError when nobody can tell whose WAL is there.
    """
    stored = read_cluster(store)
    if stored is None:
        for identifier in _sealed_identifiers(store):
            _same_cluster(store, identifier, cluster)
        _same_cluster(store, _identifier_in_wal(store, codec), cluster)
        check_key(store, codec)
        if store.put_if_absent(keys.CLUSTER, cluster.encode()):
            return
        stored = read_cluster(store)
    if stored is not None:
        _same_cluster(store, stored.system_identifier, cluster)
        if stored.segment_bytes != cluster.segment_bytes:
            raise WrongCluster(
                f"the prefix holds WAL in segments of {stored.segment_bytes} bytes, the server's are "
                f"{cluster.segment_bytes}",
                hint="Give this server a prefix of its own.",
            )
    check_key(store, codec)


def _same_cluster(store: ObjectStore, identifier: int, cluster: ClusterDocument) -> None:
    if identifier not in (0, cluster.system_identifier):
        raise WrongCluster(
            f"the prefix {store.url} belongs to another cluster",
            detail=f"its system identifier is {identifier}, this server's is {cluster.system_identifier}",
            hint=f"Use a prefix of its own for this server: {store.url.rstrip('/')}/{cluster.system_identifier}",
        )


def _sealed_identifiers(store: ObjectStore) -> set[int]:
    """The system identifiers that the newest sentinels name, for prefixes that another tool began."""
    infos, _ = store.list_level(keys.BASEBACKUPS)
    sentinels = sorted((i for i in infos if i.key.endswith(keys.SENTINEL_SUFFIX)), key=lambda i: i.modified)
    found = set()
    for info in sentinels[-_SENTINELS_READ:]:
        found.add(JsonObject.parse(info.key, fetch_sentinel(store, info)).integer("SystemIdentifier") or 0)
    return found


def _identifier_in_wal(store: ObjectStore, codec: Codec) -> int:
    """The system identifier in the first stored segment that can be read; 0 when there is none.

    Raises StorageError where there are segments, and the library for all of them is missing.
    """
    unreadable = ""
    for count, info in enumerate(store.list(keys.WAL)):
        name, extension = keys.wal_file(info.key)
        if is_segment_name(name):
            if is_readable(extension):
                return _identifier_of(store, codec, info.key)
            unreadable = unreadable or info.key
        if count == _NAMES_LOOKED_AT:
            break
    if unreadable:
        check_readable(unreadable)
    return 0


def _identifier_of(store: ObjectStore, codec: Codec, key: str) -> int:
    try:
        with store.open_read(key) as source, codec.open(key, source) as stream:
            begin = b""
            while len(begin) < LONG_HEADER_BYTES and (more := stream.read(LONG_HEADER_BYTES - len(begin))):
                begin += more
            return parse_first_page(begin).system_identifier
    except (CorruptObject, ValueError) as exc:
        raise ConfigError(
            f"the WAL in {store.url} cannot be read, so it cannot be ours: {exc}",
            hint="Configure the encryption key of that archive, or use another prefix.",
        ) from exc
