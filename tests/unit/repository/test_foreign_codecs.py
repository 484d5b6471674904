"""Compressions that only other tools write, made by independent means: the lzop program, the libraries of Python."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import resource
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbackup.errors import CorruptObject
from pgbackup.repository.codec import Codec, Compression

CODEC = Codec(Compression("none"))
MIB = 1 << 20


def lzop(content: bytes, *options: str) -> bytes:
    if shutil.which("lzop") is None:
        pytest.skip("lzop is not on this machine")
    return subprocess.run(["lzop", "-c", *options], input=content, capture_output=True, check=True).stdout


WRITERS: dict[str, Callable[[bytes], bytes]] = {
    "br": lambda content: brotli.compress(content, quality=3),
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "preset": 1}]),
    "gz": gzip.compress,
    "lzo": lzop,
}
CHECKED = ("gz", "lzo")
each = pytest.mark.parametrize("extension", WRITERS)


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    lzop(b"")


class Trickle(io.BytesIO):
    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(data)
        self._step = step

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._step)


@each
@settings(max_examples=25, deadline=None)
@given(seed=st.binary(max_size=300), repeat=st.integers(0, 3000), step=st.integers(1, 5000))
def test_what_was_written_comes_back_in_any_steps(extension: str, seed: bytes, repeat: int, step: int) -> None:
    content = seed * repeat + os.urandom(repeat)
    stored = WRITERS[extension](content)
    step = max(step, len(stored) // 2000)
    with CODEC.open(f"a.{extension}", Trickle(stored, step)) as stream:
        assert stream.read() == content
    assert CODEC.decode(f"a.{extension}", stored, limit=len(content)) == content


@each
def test_an_empty_and_a_large_object(extension: str) -> None:
    for content in (b"", os.urandom(3 * MIB) + bytes(20 * MIB)):
        assert CODEC.decode(f"a.{extension}", WRITERS[extension](content)) == content


@each
@pytest.mark.parametrize("content", [b"the WAL of a small database " * 40, os.urandom(2000)], ids=["text", "noise"])
def test_every_cut_and_everything_behind_the_end_is_seen(extension: str, content: bytes) -> None:
    stored = WRITERS[extension](content)
    for cut in range(len(stored)):
        with pytest.raises(CorruptObject):
            CODEC.decode(f"a.{extension}", stored[:cut])
    for garbage in (b"\0", b"x", bytes(512), stored):
        with pytest.raises(CorruptObject):
            CODEC.decode(f"a.{extension}", stored + garbage)


@pytest.mark.parametrize("extension", CHECKED)
def test_every_flipped_byte_is_seen(extension: str) -> None:
    """Where the format has a checksum: only what says nothing of the content may differ (a time, a name, an OS)."""
    content = b"the WAL of a small database " * 40
    stored = WRITERS[extension](content)
    silent = set(range(3, 10)) if extension == "gz" else set()
    for at in range(len(stored)):
        bad = bytearray(stored)
        bad[at] ^= 0x41
        try:
            found = CODEC.decode(f"a.{extension}", bytes(bad))
        except CorruptObject:
            continue
        assert (at in silent, found) == (True, content), f"a flip at {at} was not found"


@each
def test_damage_of_a_stream_without_a_checksum_raises_nothing_else(extension: str) -> None:
    stored = WRITERS[extension](os.urandom(500) + bytes(5000) + b"abc" * 999)
    for at in range(len(stored)):
        bad = bytearray(stored)
        bad[at] ^= 0xFF
        try:
            CODEC.decode(f"a.{extension}", bytes(bad), limit=MIB)
        except CorruptObject as exc:
            assert "a." in str(exc)  # noqa: PT017


def test_only_what_has_a_checksum_counts_as_proven() -> None:
    unproven = set()
    for extension, write in WRITERS.items():
        with CODEC.open(
            f"a.{extension}", io.BytesIO(write(b"x")), on_unproven=lambda e=extension: unproven.add(e)
        ) as s:
            s.read()
    assert unproven == {"br", "lzma"}
    plain = lzop(b"x" * 1000, "-F")
    with CODEC.open("a.lzo", io.BytesIO(plain), on_unproven=lambda: unproven.add("lzo")) as stream:
        assert stream.read() == b"x" * 1000
    assert "lzo" in unproven


@pytest.mark.parametrize("options", [("-1",), ("-5",), ("-9",), ("--crc32",), ("-F",)], ids=" ".join)
def test_what_lzop_can_write(options: tuple[str, ...]) -> None:
    content = os.urandom(300_000) + b"abc" * 300_000
    assert CODEC.decode("a.lzo", lzop(content, *options)) == content


@each
def test_an_object_that_is_not_what_its_extension_says(extension: str) -> None:
    for other, write in {**WRITERS, "zst": Codec(Compression("zstd", 1)).encode}.items():
        stored = write(b"the content of it" * 100)
        if other != extension:
            with pytest.raises(CorruptObject) as refused:
                CODEC.decode(f"a.{extension}", stored)
            assert other == "br" or f"its content is .{other}, not .{extension}" in str(refused.value)
    for stored in (b"", b"x", b"no format at all" * 99):
        with pytest.raises(CorruptObject):
            CODEC.decode(f"a.{extension}", stored)


@pytest.mark.parametrize("name", ["part_001.tar.", "part_001.tar"])
def test_what_was_not_compressed(name: str) -> None:
    assert CODEC.decode(f"basebackups_005/x/tar_partitions/{name}", b"a tar") == b"a tar"


# -- hostile ----------------------------------------------------------------------------------------------------------


@each
def test_a_bomb_comes_in_small_blocks(extension: str) -> None:
    stored = WRITERS[extension](bytes(64 * MIB))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = 0
    with CODEC.open(f"a.{extension}", io.BytesIO(stored)) as stream:
        while block := stream.read(1 << 30):
            assert len(block) <= 4 * MIB
            total += len(block)
    assert total == 64 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 << 10, "KiB"
    with pytest.raises(CorruptObject, match="more than the expected"):
        CODEC.decode(f"a.{extension}", stored, limit=MIB)


def test_an_lzma_dictionary_that_would_need_too_much_memory() -> None:
    stored = WRITERS["lzma"](b"content")
    for size in (0x10000000, 0xFFFF0000):
        bad = stored[:1] + struct.pack("<I", size) + stored[5:]
        with pytest.raises(CorruptObject, match=r"[Mm]emory"):
            CODEC.decode("a.lzma", bad)


def test_lzop_headers_and_blocks_that_ask_for_too_much() -> None:
    stored = lzop(bytes(1000))
    header = stored[: stored.index((1000).to_bytes(4, "big"))]
    blocks = {
        "too large": (1 << 31, 100), "stored larger": (100, 101), "nothing": (100, 0), "split": (0xFFFFFFFF, 1),
    }  # fmt: skip
    for size, stored_size in blocks.values():
        with pytest.raises(CorruptObject, match="which lzop does not write"):
            CODEC.decode("a.lzo", header + struct.pack(">II", size, stored_size) + bytes(200))
    lying = stored[len(header) + 4 :]
    with pytest.raises(CorruptObject):
        CODEC.decode("a.lzo", header + (999).to_bytes(4, "big") + lying)
    fields = struct.pack(">HHHBBIIIIB", 0x1040, 0x20A0, 0x0940, 9, 5, 1, 0, 0, 0, 0)
    unknown = stored[:9] + fields + struct.pack(">I", zlib.adler32(fields)) + bytes(4)
    with pytest.raises(CorruptObject, match="method 9"):
        CODEC.decode("a.lzo", unknown)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(sorted(WRITERS)), st.booleans())
def test_nonsense_is_refused_and_nothing_else(data: bytes, extension: str, with_magic: bool) -> None:
    begin = WRITERS[extension](b"")[:9] if with_magic else b""
    try:
        CODEC.decode(f"a.{extension}", begin + data, limit=MIB)
    except CorruptObject:
        pass
