"""How objects are stored: one compression frame, then encryption. Parts, WAL, histories and the manifest go through it.

Writing: the configured method, and libsodium's secretstream when a key is configured. Reading, which also takes what
WAL-G and WAL-E write: see stored_content.py. Whatever is not what its key promises is a CorruptObject with the object's
key, and the end of a stream is shown only after every checksum, the final tag and the absence of anything behind it.
Memory is bounded on both ways, whatever the content is.

A Codec has no state of its own: any number of threads may use one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Self

from pgbackup.errors import CorruptObject
from pgbackup.repository import codec_lz4, codec_zstd
from pgbackup.repository.background_encoder import BackgroundEncoder
from pgbackup.repository.encoder import Encoder
from pgbackup.repository.secretstream import SecretStreamEncoder, read_key
from pgbackup.repository.stored_content import Reading, check_readable, content_of, is_readable
from pgbackup.storage.base import ByteStream

__all__ = ["Codec", "Compression", "ContentStream", "is_readable", "read_key"]

_READ_BYTES: Final = 256 << 10
_ZSTD = re.compile(r"zstd(?::(\d{1,2}))?")
_MAX_ZSTD_LEVEL: Final = 19
_EXTENSIONS: Final = {"zstd": "zst", "lz4": "lz4", "none": ""}

Blocks = Iterator[bytes]
Content = Generator[bytes, None, None]


@dataclass(frozen=True, slots=True)
class Compression:
    """A method, ``zstd``, ``lz4`` or ``none``, and its level (0 for those without)."""

    method: str
    level: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``zstd:1`` … ``zstd:19`` (``zstd`` is ``zstd:1``), ``lz4`` or ``none``. Raises ValueError."""
        if text in ("lz4", "none"):
            return cls(text)
        match = _ZSTD.fullmatch(text)
        level = int(match[1] or 1) if match else 0
        if not 1 <= level <= _MAX_ZSTD_LEVEL:
            raise ValueError(f"not a compression (zstd:1 to zstd:{_MAX_ZSTD_LEVEL}, lz4, none): {text!r}")
        return cls("zstd", level)

    @property
    def extension(self) -> str:
        """What the keys of such objects end in; empty for ``none``."""
        return _EXTENSIONS[self.method]

    def __str__(self) -> str:
        return f"{self.method}:{self.level}" if self.method == "zstd" else self.method


class Codec:
    """Encodes with one compression and perhaps one key; decodes whatever was stored with that key or without one."""

    def __init__(
        self,
        compression: Compression,
        key: bytes | None = None,
        *,
        accept_unencrypted: bool = False,
        accept_gnupg: bool = False,
    ) -> None:
        """``key``: 32 bytes, as read_key makes them, or None for plain objects. ``accept_``: with a key, objects that
        are not encrypted, or with GnuPG, are read all the same (another tool's, from before there was a key)."""
        self._compression = compression
        self._key = key
        self._reading = Reading(key, accept_unencrypted=accept_unencrypted, accept_gnupg=accept_gnupg)

    @property
    def compression(self) -> Compression:
        return self._compression

    @property
    def extension(self) -> str:
        """What the keys of objects encoded by this codec end in."""
        return self._compression.extension

    @property
    def encrypted(self) -> bool:
        return self._key is not None

    def with_compression(self, compression: Compression) -> Codec:
        """The same key with another compression."""
        reading = self._reading
        return Codec(
            compression,
            self._key,
            accept_unencrypted=reading.accept_unencrypted,
            accept_gnupg=reading.accept_gnupg,
        )

    def strict(self) -> Codec:
        """The same, but with a key everything must be encrypted with it."""
        return Codec(self._compression, self._key)

    def uncompressed(self) -> Codec:
        """The same key without compression."""
        return self.with_compression(Compression("none"))

    # -- writing ------------------------------------------------------------------------------------------------

    def encode(self, data: bytes | memoryview) -> bytes:
        """A whole small object."""
        if self._compression.method == "zstd":
            stored = codec_zstd.encode(self._compression.level, data)
        else:
            compressor = self._compressors(0)()
            stored = compressor.write(data) + compressor.finish()
        if self._key is None:
            return stored
        encryptor = SecretStreamEncoder(self._key)
        return encryptor.write(stored) + encryptor.finish()

    def encoder(self) -> Encoder:
        """An object of any size, piece by piece."""
        return self.encoders()()

    def encoders(self, *, threads: int = 0) -> Callable[[], Encoder]:
        """Encoders of one object after another: what a compressor needs, its threads too, is kept between them.

        Take the next one when the one before is finished or given up. ``threads``: the work is done beside the
        caller's thread, by that many where zstd brings them and by one elsewhere; what is written must not change any
        more then. The threads end with the last encoder and what this returns.
        """
        compressors, key = self._compressors(threads), self._key

        def new() -> Encoder:
            encoder = compressors() if key is None else _Encrypted(compressors(), SecretStreamEncoder(key))
            return BackgroundEncoder(encoder) if threads and not self._brings_threads else encoder

        return new

    @property
    def _brings_threads(self) -> bool:
        return self._compression.method == "zstd" and self._compression.level <= codec_zstd.MAX_THREADED_LEVEL

    def _compressors(self, threads: int) -> Callable[[], Encoder]:
        if self._compression.method == "zstd":
            return codec_zstd.encoders(self._compression.level, threads)
        return codec_lz4.Lz4Encoder if self._compression.method == "lz4" else _Plain

    # -- reading ------------------------------------------------------------------------------------------------

    def decode(self, key: str, data: bytes, *, limit: int | None = None) -> bytes:
        """The content of a whole object. ``limit``: more bytes than that are CorruptObject, too."""
        parts, size = [], 0
        with closing(self._content(key, iter((data,) if data else ()))) as content:
            for block in content:
                parts.append(block)
                size += len(block)
                if limit is not None and size > limit:
                    raise CorruptObject(key, f"it holds more than the expected {limit} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def open(self, key: str, source: ByteStream, *, on_unproven: Callable[[], None] = lambda: None) -> ContentStream:
        """The content of an object as a stream; ``read(-1)`` is all the rest. Close it: a gpg may run behind it.

        ``on_unproven`` is called when nothing vouches for the content: it is neither encrypted nor in a frame with a
        checksum (other writers leave that out), so a flipped bit may pass unseen.
        """
        return ContentStream(self._content(key, _blocks_of(source), on_unproven))

    def _content(self, key: str, stored: Blocks, on_unproven: Callable[[], None] = lambda: None) -> Content:
        check_readable(key)
        return content_of(key, stored, self._reading, on_unproven)


# -- what codecs are put together of ----------------------------------------------------------------------------


class _Plain:
    """No compression."""

    def write(self, data: bytes | memoryview) -> bytes:
        return bytes(data)

    def finish(self) -> bytes:
        return b""


class _Encrypted:
    """Compression, then encryption."""

    def __init__(self, compressor: Encoder, encryptor: SecretStreamEncoder) -> None:
        self._compressor = compressor
        self._encryptor = encryptor

    def write(self, data: bytes | memoryview) -> bytes:
        stored = self._compressor.write(data)
        return self._encryptor.write(stored) if stored else b""

    def finish(self) -> bytes:
        return self._encryptor.write(self._compressor.finish()) + self._encryptor.finish()


class ContentStream:
    """A ByteStream over blocks; a block that fits is handed on without a copy."""

    def __init__(self, blocks: Content) -> None:
        self._blocks = blocks
        self._block = b""
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            rest, self._block, self._position = self._block[self._position :], b"", 0
            return b"".join((rest, *self._blocks))
        if self._position == len(self._block):
            self._block, self._position = next(self._blocks, b""), 0
        begin, self._position = self._position, min(self._position + size, len(self._block))
        if begin == 0 and self._position == len(self._block):
            return self._block
        return self._block[begin : self._position]

    def close(self) -> None:
        """Nobody reads on; what was not read is not checked."""
        self._blocks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _blocks_of(source: ByteStream) -> Blocks:
    while data := source.read(_READ_BYTES):
        yield data
