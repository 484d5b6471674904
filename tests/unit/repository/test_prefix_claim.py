"""One cluster and one key for each prefix, decided before the first write."""

from __future__ import annotations

import json

import pytest

from pgbackup.core.lsn import MIB, Lsn
from pgbackup.errors import ConfigError, CorruptObject, StorageError, WrongCluster
from pgbackup.repository import codec_lzop, keys
from pgbackup.repository.catalog_reader import claim_prefix, read_cluster
from pgbackup.repository.codec import Codec, Compression
from pgbackup.repository.documents import ClusterDocument
from pgbackup.storage.memory import MemoryStore
from tests.made_backup import ZSTD, MadeRepository
from tests.made_wal import SYSTEM, MadeWal

OURS = ClusterDocument(SYSTEM, MIB, 180001)
SEGMENT = "000000010000000000000003"
SECRET = Codec(Compression("zstd", 1), bytes(range(32)))


def test_the_first_claim_and_the_second() -> None:
    store = MemoryStore()
    claim_prefix(store, OURS, ZSTD)
    claim_prefix(store, ClusterDocument(SYSTEM, MIB, 180002), ZSTD)
    assert read_cluster(store) == OURS
    assert {i.key for i in store.list()} == {keys.CLUSTER, keys.KEY_CHECK}


def test_another_cluster_is_refused_with_a_prefix_to_use() -> None:
    store = MemoryStore()
    claim_prefix(store, OURS, ZSTD)
    with pytest.raises(WrongCluster) as caught:
        claim_prefix(store, ClusterDocument(5, MIB, 180001), ZSTD)
    assert str(SYSTEM) in caught.value.detail
    assert "this server's is 5" in caught.value.detail
    assert caught.value.hint.endswith("/5")


def test_another_segment_size_is_refused() -> None:
    store = MemoryStore()
    claim_prefix(store, OURS, ZSTD)
    with pytest.raises(WrongCluster, match="segments of 1048576 bytes"):
        claim_prefix(store, ClusterDocument(SYSTEM, 16 * MIB, 180001), ZSTD)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (ZSTD, SECRET, "is not encrypted"),
        (SECRET, ZSTD, "no encryption key is configured"),
        (SECRET, Codec(Compression("zstd", 1), bytes(32)), "is not the one"),
    ],
)
def test_another_key_is_refused(first: Codec, second: Codec, message: str) -> None:
    store = MemoryStore()
    claim_prefix(store, OURS, first)
    with pytest.raises(ConfigError, match=message):
        claim_prefix(store, OURS, second)
    claim_prefix(store, OURS, first.with_compression(Compression("lz4")))


def test_the_key_check_is_no_secret_and_no_plaintext() -> None:
    store = MemoryStore()
    claim_prefix(store, OURS, SECRET)
    assert b"pgbackup" not in store.get(keys.KEY_CHECK)


def test_a_damaged_cluster_document_is_not_overwritten() -> None:
    store = MemoryStore()
    store.put(keys.CLUSTER, b"{}")
    with pytest.raises(CorruptObject, match=r"cluster\.json"):
        claim_prefix(store, OURS, ZSTD)
    assert store.get(keys.CLUSTER) == b"{}"


# -- prefixes that another tool began ---------------------------------------------------------------------------------


def test_sentinels_say_whose_a_prefix_is() -> None:
    made = MadeRepository(system_identifier=77)
    made.backup(Lsn(3 * MIB + 40), Lsn(3 * MIB + 400))
    with pytest.raises(WrongCluster, match="another cluster"):
        claim_prefix(made.store, OURS, ZSTD)
    assert read_cluster(made.store) is None
    claim_prefix(made.store, ClusterDocument(77, MIB, 180001), ZSTD)


def test_an_old_sentinel_that_names_no_cluster_is_no_obstacle() -> None:
    store = MemoryStore()
    store.put(keys.sentinel("base_000000010000000000000006_00000040"), json.dumps({"expanded_size_bytes": 1}).encode())
    claim_prefix(store, OURS, ZSTD)


def test_a_sentinel_that_cannot_be_read_is_refused() -> None:
    store = MemoryStore()
    store.put(keys.sentinel("base_000000010000000000000006"), b"{")
    with pytest.raises(CorruptObject):
        claim_prefix(store, OURS, ZSTD)


def made_wal(codec: Codec = ZSTD) -> MadeRepository:
    made, wal = MadeRepository(codec), MadeWal(3)
    wal.fill_to(1.5)
    made.wal(wal)
    return made


@pytest.mark.parametrize("codec", [ZSTD, SECRET, Codec(Compression("lz4"))])
def test_wal_alone_says_whose_a_prefix_is(codec: Codec) -> None:
    store = made_wal(codec).store
    with pytest.raises(WrongCluster, match="another cluster"):
        claim_prefix(store, ClusterDocument(5, MIB, 180001), codec)
    claim_prefix(store, OURS, codec)


@pytest.mark.parametrize(("stored", "configured"), [(ZSTD, SECRET), (SECRET, ZSTD)])
def test_wal_under_another_key_is_refused(stored: Codec, configured: Codec) -> None:
    store = made_wal(stored).store
    with pytest.raises(ConfigError, match="cannot be read"):
        claim_prefix(store, OURS, configured)
    assert read_cluster(store) is None


def test_wal_for_which_the_library_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another cluster's WAL-E archive was taken over unseen."""
    store = MemoryStore()
    store.put(keys.wal("000000010000000000000003", "lzo"), b"\x89LZO")
    monkeypatch.setattr(codec_lzop, "lzallright", None)
    with pytest.raises(StorageError, match="cannot read") as caught:
        claim_prefix(store, OURS, ZSTD)
    assert "pip install 'pgbackup[wal-e]'" in caught.value.hint
    assert read_cluster(store) is None
    store.put(keys.wal("000000010000000000000004", "zst"), made_wal().store.get(keys.wal(SEGMENT, "zst")))
    claim_prefix(store, OURS, ZSTD)


def test_two_claims_at_once() -> None:
    store = MemoryStore()

    def other_comes_first(operation: str, key: str) -> None:
        if operation == "put_if_absent" and key == keys.CLUSTER:
            store.on_call = None
            store.put(keys.CLUSTER, ClusterDocument(5, MIB, 180001).encode())

    store.on_call = other_comes_first
    with pytest.raises(WrongCluster, match="another cluster"):
        claim_prefix(store, OURS, ZSTD)
