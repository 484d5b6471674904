"""Stored objects come back as they were, or not at all: every cut, every flipped bit, every swap is seen."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import suppress

import lz4.frame
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbackup.errors import CorruptObject, StorageError
from pgbackup.repository import codec_lzop
from pgbackup.repository.codec import Codec, Compression, is_readable, read_key

KEY = bytes(range(32))
METHODS = ("zstd:1", "lz4", "none")
CODECS = {
    f"{method}{'-encrypted' if key else ''}": Codec(Compression.parse(method), key)
    for method in METHODS
    for key in (None, KEY)
}
each_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
checked_codec = pytest.mark.parametrize(
    "codec", [c for n, c in CODECS.items() if n != "none"], ids=[n for n in CODECS if n != "none"]
)
PLAIN = Codec(Compression("zstd", 1))
SECRET = Codec(Compression("zstd", 1), KEY)
CONTENT = b"the WAL of a small database " * 8 + os.urandom(64)


def key_of(codec: Codec) -> str:
    return "wal_005/000000010000000000000001" + (f".{codec.extension}" if codec.extension else "")


def streamed(codec: Codec, content: bytes, step: int = 100) -> bytes:
    encoder = codec.encoder()
    parts = [encoder.write(content[i : i + step]) for i in range(0, len(content), step)]
    return b"".join((*parts, encoder.finish()))


class Trickle:
    """A stream that returns few bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self._stream = io.BytesIO(data)
        self._step = step

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(self._step if size < 0 else min(size, self._step))


# -- round trips ------------------------------------------------------------------------------------------------------


@each_codec
@given(content=st.binary(max_size=30_000), step=st.integers(1, 9000), stored_step=st.integers(1, 9000))
@settings(max_examples=50)
def test_round_trip_in_any_steps(codec: Codec, content: bytes, step: int, stored_step: int) -> None:
    stored = streamed(codec, content, step)
    stream = codec.open(key_of(codec), Trickle(stored, stored_step))
    out = b""
    while data := stream.read(step):
        assert len(data) <= step
        out += data
    assert stream.read(step) == b""
    assert out == content
    assert codec.decode(key_of(codec), stored) == content
    assert codec.decode(key_of(codec), codec.encode(content)) == content


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 16384, 100_000, 3_000_000])
@each_codec
def test_sizes_at_the_borders_of_chunks(codec: Codec, size: int) -> None:
    content = os.urandom(size)
    assert codec.decode(key_of(codec), codec.encode(content)) == content
    assert codec.open(key_of(codec), io.BytesIO(streamed(codec, content, 70_000))).read() == content


@each_codec
def test_compressible_and_large(codec: Codec) -> None:
    content = b"".join(os.urandom(1000) * 300 for _ in range(30)) + bytes(5_000_000)
    stored = streamed(codec, content, 1 << 20)
    assert codec.decode(key_of(codec), stored) == content
    if codec.extension:
        assert len(stored) < len(content) / 2


def test_threads_make_one_frame() -> None:
    content = os.urandom(1000) * 20_000
    encoder = PLAIN.encoders(threads=2)()
    stored = encoder.write(content) + encoder.finish()
    assert PLAIN.decode("x.zst", stored) == content


@each_codec
@pytest.mark.parametrize("threads", [0, 2])
def test_one_object_after_another(codec: Codec, threads: int) -> None:
    """Each is whole and by itself, also after one that was given up in the middle."""
    encoders = codec.encoders(threads=threads)
    for number in range(4):
        content = os.urandom(1000) * 5_000 + bytes([number])
        encoder = encoders()
        stored = encoder.write(memoryview(content))
        if number == 2:
            continue
        stored += encoder.finish()
        assert codec.decode(key_of(codec), stored) == content


@pytest.mark.parametrize("level", [1, 3, 19])
def test_a_zstd_frame_has_a_checksum_and_a_small_window(level: int) -> None:
    codec = Codec(Compression("zstd", level))
    for stored in (codec.encode(CONTENT), streamed(codec, CONTENT)):
        frame = zstandard.get_frame_parameters(stored)
        assert frame.has_checksum
        assert frame.window_size <= 8 << 20


def test_an_lz4_frame_is_as_wal_g_writes_it() -> None:
    """Independent blocks of 4 MiB, a content checksum, no content size."""
    assert Codec(Compression("lz4")).encode(CONTENT)[:6] == b"\x04\x22\x4d\x18\x64\x70"


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 20_000])
def test_the_layout_of_encryption_is_wal_gs(size: int) -> None:
    """A header, 17 bytes more for each chunk, and a last chunk shorter than 8192 bytes (possibly empty)."""
    codec = Codec(Compression("none"), KEY)
    assert len(codec.encode(bytes(size))) == 24 + size + 17 * (size // 8192 + 1)


# -- damage -----------------------------------------------------------------------------------------------------------


@checked_codec
def test_every_cut_is_seen(codec: Codec) -> None:
    for stored in (codec.encode(CONTENT), streamed(codec, CONTENT)):
        for length in range(len(stored)):
            with pytest.raises(CorruptObject):
                codec.decode(key_of(codec), stored[:length])
            stream = codec.open(key_of(codec), Trickle(stored[:length], 50))
            with pytest.raises(CorruptObject):
                drained(stream)


@checked_codec
def test_every_flipped_bit_is_seen(codec: Codec) -> None:
    for stored in (codec.encode(CONTENT), streamed(codec, CONTENT)):
        harmless = [flip for flip, damaged in flips(stored) if decodes(codec, damaged)]
        # The formats have some bits that say nothing about the content: the size of zstd's window, when it is larger
        # than needed, and a match's length in lz4's last token, which has no match. Encryption has none.
        assert len(harmless) <= (0 if codec.encrypted else 7), harmless


def decodes(codec: Codec, stored: bytes) -> bool:
    try:
        content = codec.decode(key_of(codec), stored)
    except CorruptObject:
        return False
    assert content == CONTENT, "damage came through"
    return True


def flips(stored: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    for position in range(len(stored)):
        for bit in range(8):
            damaged = bytearray(stored)
            damaged[position] ^= 1 << bit
            yield (position, bit), bytes(damaged)


def drained(stream) -> None:
    while stream.read(1000):
        pass


@checked_codec
@pytest.mark.parametrize("garbage", [b"\0", b"x" * 100, bytes(300_000)], ids=len)
def test_bytes_after_the_end_are_seen(codec: Codec, garbage: bytes) -> None:
    stored = codec.encode(CONTENT) + garbage
    with pytest.raises(CorruptObject):
        codec.decode(key_of(codec), stored)
    with pytest.raises(CorruptObject):
        drained(codec.open(key_of(codec), Trickle(stored, 77)))


@checked_codec
def test_a_second_frame_is_seen(codec: Codec) -> None:
    """WAL-G's lz4 reader would pass over it without a word."""
    with pytest.raises(CorruptObject):
        codec.decode(key_of(codec), codec.encode(CONTENT) * 2)


@checked_codec
@given(data=st.data())
@settings(max_examples=60)
def test_random_damage_of_a_larger_object(codec: Codec, data: st.DataObject) -> None:
    stored = bytearray(LARGE[key_of(codec), codec.encrypted])
    position = data.draw(st.integers(0, len(stored) - 1))
    new = data.draw(st.binary(max_size=40))
    stored[position : position + data.draw(st.integers(0, 40))] = new
    with suppress(CorruptObject):
        assert codec.decode(key_of(codec), bytes(stored)) == LARGE_CONTENT


LARGE_CONTENT = b"".join(os.urandom(100) * 3 for _ in range(1500))
LARGE = {(key_of(codec), codec.encrypted): codec.encode(LARGE_CONTENT) for codec in CODECS.values()}


def test_a_cut_at_the_border_of_an_encrypted_chunk_is_seen() -> None:
    codec = Codec(Compression("none"), KEY)
    stored = codec.encode(bytes(8192 * 2 + 5))
    with pytest.raises(CorruptObject, match="cut short"):
        codec.decode("x", stored[: 24 + 2 * (8192 + 17)])


# -- what an object is not --------------------------------------------------------------------------------------------


def test_a_wrong_key_plaintext_and_ciphertext_are_told_apart() -> None:
    other = Codec(Compression("zstd", 1), bytes(32))
    with pytest.raises(CorruptObject, match=r"x\.zst is damaged: it was encrypted with another key"):
        other.decode("x.zst", SECRET.encode(CONTENT))
    with pytest.raises(CorruptObject, match=r"encrypted \(and no key is configured\), or damaged"):
        PLAIN.decode("x.zst", SECRET.encode(CONTENT))
    with pytest.raises(CorruptObject, match="it is not encrypted, but an encryption key is configured"):
        SECRET.decode("x.zst", PLAIN.encode(CONTENT))
    with pytest.raises(CorruptObject, match="is not encrypted, or is damaged"):
        SECRET.decode("x", CONTENT)


@pytest.mark.parametrize("codec", [PLAIN, SECRET], ids=["plain", "encrypted"])
def test_an_object_that_is_not_what_its_extension_says(codec: Codec) -> None:
    lz4_codec = codec.with_compression(Compression("lz4"))
    with pytest.raises(CorruptObject, match=r"its content is \.lz4, not \.zst"):
        codec.decode("a.zst", lz4_codec.encode(CONTENT))
    with pytest.raises(CorruptObject, match=r"its content is \.zst, not \.lz4"):
        codec.decode("a.lz4", codec.encode(CONTENT))
    with pytest.raises(CorruptObject, match=r"not \.zst"):
        codec.decode("a.zst", codec.uncompressed().encode(CONTENT))


@each_codec
def test_an_empty_object(codec: Codec) -> None:
    if codec.extension or codec.encrypted:
        with pytest.raises(CorruptObject, match="empty"):
            codec.decode(key_of(codec), b"")
    else:
        assert codec.decode(key_of(codec), b"") == b""


def test_without_the_extra_lzop_is_refused_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_readable("lzo")
    monkeypatch.setattr(codec_lzop, "lzallright", None)
    assert not is_readable("lzo")
    with pytest.raises(StorageError, match="this installation cannot read") as refused:
        PLAIN.decode("a.lzo", b"\x89LZO\x00\r\n\x1a\n")
    assert "pip install 'pgbackup[wal-e]'" in refused.value.hint


def test_other_writers_frames_are_read() -> None:
    codec = Codec(Compression("none"))
    assert codec.decode("a.zst", zstandard.ZstdCompressor(level=19).compress(CONTENT)) == CONTENT
    without_checksum = zstandard.ZstdCompressor(write_checksum=False, write_content_size=False)
    assert codec.decode("a.zst", without_checksum.compress(CONTENT)) == CONTENT
    assert codec.decode("a.lz4", lz4.frame.compress(CONTENT, block_linked=True, store_size=True)) == CONTENT
    assert codec.decode("a.", CONTENT) == CONTENT


def test_a_window_that_would_need_too_much_memory() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(CorruptObject, match="window"):
        PLAIN.decode("a.zst", compressor.compress(CONTENT) + compressor.flush())


# -- bombs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["zstd:1", "lz4"])
def test_a_bomb_is_stopped_at_the_limit(method: str) -> None:
    codec = Codec(Compression.parse(method))
    with pytest.raises(CorruptObject, match="more than the expected 1000 bytes"):
        codec.decode(key_of(codec), codec.encode(bytes(50_000_000)), limit=1000)


@pytest.mark.parametrize("method", ["zstd:1", "lz4"])
def test_a_bomb_comes_in_small_blocks(method: str) -> None:
    codec = Codec(Compression.parse(method))
    stream = codec.open(key_of(codec), io.BytesIO(codec.encode(bytes(50_000_000))))
    sizes = []
    while data := stream.read(1 << 30):
        sizes.append(len(data))
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= 1 << 20


def test_a_limit_that_is_met_exactly() -> None:
    assert PLAIN.decode("a.zst", PLAIN.encode(CONTENT), limit=len(CONTENT)) == CONTENT


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "transform", "key"),
    [
        ("x" * 25, "none", b"x" * 25 + bytes(7)),
        ("x" * 40, "none", b"x" * 32),
        ("ä" * 13, "none", ("ä" * 13).encode() + bytes(6)),
        ("\udcff" * 32, "none", b"\xff" * 32),
        ("00" * 32, "hex", bytes(32)),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "base64", bytes(32)),
    ],
)
def test_keys_as_wal_g_reads_them(text: str, transform: str, key: bytes) -> None:
    assert read_key(text, transform) == key


@pytest.mark.parametrize(
    ("text", "transform"),
    [
        ("short", "none"),
        ("00" * 31, "hex"),
        ("zz" * 32, "hex"),
        ("AAAA", "base64"),
        ("!secret!", "base64"),
        ("\udcff" * 32, "hex"),
        ("x" * 32, "rot13"),
    ],
)
def test_keys_that_cannot_be_used_are_refused_without_being_shown(text: str, transform: str) -> None:
    with pytest.raises(ValueError, match="key") as caught:
        read_key(text, transform)
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "compression", "extension"),
    [
        ("zstd", Compression("zstd", 1), "zst"),
        ("zstd:19", Compression("zstd", 19), "zst"),
        ("lz4", Compression("lz4"), "lz4"),
        ("none", Compression("none"), ""),
    ],
)
def test_compressions(text: str, compression: Compression, extension: str) -> None:
    assert Compression.parse(text) == compression
    assert compression.extension == extension
    assert Codec(compression, KEY).encoder().write(memoryview(b"")) is not None  # type: ignore[arg-type]
    assert Compression.parse(str(compression)) == compression


@pytest.mark.parametrize("text", ["zstd:0", "zstd:20", "zstd:x", "gzip", "none:1", "lz4:99", ""])
def test_compressions_that_do_not_exist(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        Compression.parse(text)
