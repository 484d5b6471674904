"""WAL for which no checksum vouches (other writers leave it out): one flipped bit is found, not replayed up to."""

from __future__ import annotations

import lz4.frame
import pytest
import zstandard

from pgbackup.engines.restore.wal_fetch import fetch
from pgbackup.engines.wal.read import WalReader
from pgbackup.errors import CorruptObject
from pgbackup.repository import keys
from tests.restoring import SETTINGS, Repository, insert


def zstd(raw: bytes) -> bytes:
    encoder = zstandard.ZstdCompressor(level=3, write_checksum=False, write_content_size=False).compressobj()
    return encoder.compress(raw) + encoder.flush()


def lz4_(raw: bytes) -> bytes:
    return lz4.frame.compress(raw, content_checksum=False)


@pytest.mark.parametrize(("encode", "extension"), [(zstd, "zst"), (lz4_, "lz4")])
def test_a_flipped_bit_is_found(make_server, encode, extension, tmp_path):
    source = make_server(settings=SETTINGS)
    source.execute("CREATE TABLE t (n int)")
    repository = Repository(make_server)
    repository.archiver.backup(source)
    for n in range(1, 40):
        insert(source, n)
    source.execute("SELECT pg_switch_wal()")
    insert(source, 1000)
    repository.archiver.wal(source)
    store, codec = repository.store, repository.codec
    key = sorted(info.key for info in store.list(keys.WAL) if ".partial/" not in info.key)[-1]
    raw = codec.decode(key, store.get(key))
    store.delete([key])
    key = f"{key.rpartition('.')[0]}.{extension}"
    store.put(key, encode(raw))
    assert repository.restore().verified, "undamaged, it is taken"
    name = key.removeprefix(keys.WAL).partition(".")[0]
    fetch(WalReader(store, codec, checks_records=True), name, tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == raw
    store.put(key, _damaged(codec, key, raw, encode(raw)))
    with pytest.raises(CorruptObject):
        repository.restore()
    with pytest.raises(CorruptObject, match="record"):
        fetch(WalReader(store, codec, checks_records=True), name, tmp_path / "damaged")
    assert not (tmp_path / "damaged").exists()


def _damaged(codec, key: str, raw: bytes, stored: bytes) -> bytes:
    """One bit flipped so that the compression does not notice."""
    for at in range(1500, len(stored), max(1, len(stored) // 500)):
        bad = bytearray(stored)
        bad[at] ^= 0x04
        try:
            out = codec.decode(key, bytes(bad))
        except CorruptObject:
            continue
        # In a record that is in use, not in the first page's header or the zeros at the end.
        if len(out) == len(raw) and out != raw and out[:8192] == raw[:8192]:
            return bytes(bad)
    pytest.skip("every flipped bit was noticed")
