"""Stored objects come back as they were, or not at all: every cut, every flipped bit, every swap is seen."""

from __future__ import annotations

import io
import os

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.errors import CorruptObject
from pgbackup.repository.codec import Codec, Compression, read_key

KEY = bytes(range(32))
CODECS = {
    f"{method}{'-encrypted' if key else ''}": Codec(Compression.parse(method), key)
    for method in ("zstd:1", "lz4", "none")
    for key in (None, KEY)
}
each_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
checked_codec = pytest.mark.parametrize("codec", [c for n, c in CODECS.items() if n != "none"])
CONTENT = b"the WAL of a small database " * 8 + os.urandom(64)


def key_of(codec: Codec) -> str:
    return "wal_005/000000010000000000000001" + (f".{codec.extension}" if codec.extension else "")


@each_codec
@given(content=st.binary(max_size=30_000), step=st.integers(1, 9000))
def test_round_trip_in_any_steps(codec: Codec, content: bytes, step: int) -> None:
    encoder = codec.encoder()
    stored = b"".join(encoder.write(content[i : i + step]) for i in range(0, len(content), step)) + encoder.finish()
    stream = codec.open(key_of(codec), io.BytesIO(stored))
    out = b""
    while data := stream.read(step):
        assert len(data) <= step
        out += data
    assert out == content
    assert codec.decode(key_of(codec), stored) == content


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 16384, 100_000, 3_000_000])
@each_codec
def test_sizes_at_the_borders_of_chunks(codec: Codec, size: int) -> None:
    content = os.urandom(size)
    assert codec.decode(key_of(codec), codec.encode(content)) == content


@checked_codec
def test_every_cut_is_seen(codec: Codec) -> None:
    stored = codec.encode(CONTENT)
    for length in range(len(stored)):
        with pytest.raises(CorruptObject):
            codec.decode(key_of(codec), stored[:length])


@checked_codec
def test_every_flipped_bit_is_seen(codec: Codec) -> None:
    stored = codec.encode(CONTENT)
    for position in range(len(stored)):
        for bit in range(8):
            damaged = bytearray(stored)
            damaged[position] ^= 1 << bit
            try:
                content = codec.decode(key_of(codec), bytes(damaged))
            except CorruptObject:
                continue
            # Some bits of a frame's header change nothing that is decoded.
            assert content == CONTENT, f"bit {bit} of byte {position}"


@checked_codec
def test_bytes_after_the_end_are_seen(codec: Codec) -> None:
    with pytest.raises(CorruptObject):
        codec.decode(key_of(codec), codec.encode(CONTENT) + b"\0")


def test_a_cut_at_the_border_of_an_encrypted_chunk_is_seen() -> None:
    codec = Codec(Compression("none"), KEY)
    stored = codec.encode(bytes(8192 * 2 + 5))
    with pytest.raises(CorruptObject, match="cut"):
        codec.decode("x", stored[: 24 + 2 * (8192 + 17)])


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 20_000])
def test_the_layout_is_wal_gs(size: int) -> None:
    """Header, 17 bytes more for each chunk, and a last chunk shorter than 8192 bytes (possibly empty)."""
    codec = Codec(Compression("none"), KEY)
    assert len(codec.encode(bytes(size))) == 24 + size + 17 * (size // 8192 + 1)


def test_a_wrong_key_plaintext_and_ciphertext_are_told_apart() -> None:
    plain, secret = Codec(Compression("zstd", 1)), Codec(Compression("zstd", 1), KEY)
    other = Codec(Compression("zstd", 1), bytes(32))
    with pytest.raises(CorruptObject, match=r"x\.zst is damaged.*key does not fit"):
        other.decode("x.zst", secret.encode(CONTENT))
    with pytest.raises(CorruptObject, match="may be encrypted"):
        plain.decode("x.zst", secret.encode(CONTENT))
    with pytest.raises(CorruptObject, match="not encrypted"):
        secret.decode("x.zst", plain.encode(CONTENT))


def test_an_object_that_is_not_what_its_extension_says() -> None:
    codec = Codec(Compression("zstd", 1))
    with pytest.raises(CorruptObject, match="its key says zst, its content is lz4"):
        codec.decode("a.zst", lz4.frame.compress(CONTENT))
    with pytest.raises(CorruptObject, match="cannot be read"):
        codec.decode("a.lzo", b"\x89LZO\0\r\n\x1a\n" + bytes(50))


def test_other_writers_frames_are_read() -> None:
    codec = Codec(Compression("none"))
    assert codec.decode("a.zst", zstandard.ZstdCompressor(level=19).compress(CONTENT)) == CONTENT
    assert codec.decode("a.lz4", lz4.frame.compress(CONTENT)) == CONTENT
    assert codec.decode("a.", CONTENT) == CONTENT


def test_a_bomb_is_stopped_at_the_limit() -> None:
    codec = Codec(Compression("zstd", 1))
    with pytest.raises(CorruptObject, match="more than 1000 bytes"):
        codec.decode("a.zst", codec.encode(bytes(50_000_000)), limit=1000)


@pytest.mark.parametrize(
    ("text", "transform", "key"),
    [
        ("x" * 25, "none", b"x" * 25 + bytes(7)),
        ("x" * 40, "none", b"x" * 32),
        ("00" * 32, "hex", bytes(32)),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "base64", bytes(32)),
    ],
)
def test_keys_as_wal_g_reads_them(text: str, transform: str, key: bytes) -> None:
    assert read_key(text, transform) == key


@pytest.mark.parametrize(
    ("text", "transform"), [("short", "none"), ("00" * 31, "hex"), ("zz" * 32, "hex"), ("AAAA", "base64"), ("!", "base64")]
)
def test_keys_that_cannot_be_used_are_refused_without_being_shown(text: str, transform: str) -> None:
    with pytest.raises(ValueError, match="key") as caught:
        read_key(text, transform)
    assert text not in str(caught.value)


@pytest.mark.parametrize("text", ["zstd:0", "zstd:20", "zstd:x", "gzip", "none:1", "lz4:99", ""])
def test_compressions_that_do_not_exist(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        Compression.parse(text)
