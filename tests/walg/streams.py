"""What is in an object: decryption, decompression and tars as WAL-G does them. Rules: repository-format.md, 6, 8, 9."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

import lz4.frame
import zstandard
from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_init_pull,
    crypto_secretstream_xchacha20poly1305_pull,
    crypto_secretstream_xchacha20poly1305_state,
)

EXTENSIONS = ("lz4", "lzma", "gz", "", "br", "lzo", "zst")
MAGIC = {"lz4": b"\x04\x22\x4d\x18", "zst": b"\x28\xb5\x2f\xfd", "gz": b"\x1f\x8b"}
_HEADER, _CHUNK, _TAG = 24, 8192, 17
_MESSAGE, _FINAL = 0, 3
_WINDOW_LIMIT = 512 << 20
_OUTPUT_LIMIT = 2 << 30


class Refused(Exception):
    """WAL-G would fail on this object, or restore something else from it."""


def extension_of(name: str) -> str:
    """What follows the last dot, as WAL-G takes it."""
    return name.rpartition(".")[2] if "." in name else ""


def content(name: str, stored: bytes, key: bytes | None) -> bytes:
    """What WAL-G reads from an object. Raises Refused."""
    data = decrypted(stored, key) if key is not None else stored
    extension = extension_of(name)
    if extension == "tar" or len(extension) > 4 or (len(name) == 24 and "." not in name):
        return data
    if extension not in EXTENSIONS:
        raise Refused(f"no decompressor for .{extension}")
    if extension in MAGIC and not data.startswith(MAGIC[extension]):
        raise Refused(f"its content is not .{extension}: mixed with encrypted objects, or damaged")
    try:
        return _DECODERS[extension](data)
    except (RuntimeError, zstandard.ZstdError, OSError, EOFError) as exc:
        raise Refused(f"it cannot be decompressed: {exc}") from exc


def decrypted(stored: bytes, key: bytes) -> bytes:
    """libsodium's secretstream in chunks of 8192, the last one shorter and FINAL. Raises Refused."""
    state = crypto_secretstream_xchacha20poly1305_state()
    if len(stored) < _HEADER + _TAG:
        raise Refused("it is too short for an encrypted object")
    crypto_secretstream_xchacha20poly1305_init_pull(state, stored[:_HEADER], key)
    parts, position = [], _HEADER
    while True:
        chunk = stored[position : position + _CHUNK + _TAG]
        position += len(chunk)
        try:
            plain, tag = crypto_secretstream_xchacha20poly1305_pull(state, chunk)
        except Exception as exc:
            raise Refused(f"it cannot be decrypted at byte {position}: {exc}") from exc
        parts.append(plain)
        is_last = position >= len(stored)
        if tag == _FINAL and len(plain) == _CHUNK:
            raise Refused("premature end: a chunk of full size is marked as the final one")
        if not is_last and (tag != _MESSAGE or len(plain) != _CHUNK):
            raise Refused(f"a chunk before the end has {len(plain)} bytes and tag {tag}")
        if is_last:
            if tag != _FINAL:
                raise Refused("it is cut at the border of a chunk")
            return b"".join(parts)


def _lz4(data: bytes) -> bytes:
    decoder = lz4.frame.LZ4FrameDecompressor()
    found: bytes = decoder.decompress(data)
    if not decoder.eof:
        raise Refused("its LZ4 frame is cut short")
    if decoder.unused_data:
        raise Refused("it goes on after the first LZ4 frame, where WAL-G stops without a word")
    return found


def _zstd(data: bytes) -> bytes:
    found = []
    while data:
        if zstandard.get_frame_parameters(data).window_size > _WINDOW_LIMIT:
            raise Refused("its zstd window is larger than 512 MiB")
        decoder = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
        found.append(decoder.decompress(data))
        if not decoder.eof:
            raise Refused("its zstd frame is cut short")
        data = decoder.unused_data
    return b"".join(found)


def _lzo(data: bytes) -> bytes:
    """What WAL-E stores; the program itself is what made it."""
    done = subprocess.run(["lzop", "-dc"], input=data, capture_output=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace").strip())
    return done.stdout


_DECODERS = {"lz4": _lz4, "zst": _zstd, "gz": gzip.decompress, "lzo": _lzo, "": lambda data: data}


@dataclass
class TarContents:
    """Regular members by name, and what is wrong."""

    files: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_tar(data: bytes) -> TarContents:
    """Section 6: no links, nothing outside, terminated, and zeros only behind the end."""
    found = TarContents()
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                found.problems += _member_problems(member)
                if member.isreg():
                    if member.name in found.files:
                        found.problems.append(f"{member.name} is there twice")
                    found.files[member.name] = member.size
            end = tar.offset
    except tarfile.TarError as exc:
        found.problems.append(f"it is not a whole tar: {exc}")
        return found
    if len(data) - end < 0 or data[end:].strip(b"\0"):
        found.problems.append("something follows the end of the tar")
    return found


def _member_problems(member: tarfile.TarInfo) -> Iterator[str]:
    if not (member.isreg() or member.isdir()):
        yield f"{member.name} is a link: WAL-G makes a junk link of it"
    parts = member.name.split("/")
    if ".." in parts or "." in parts:
        yield f"{member.name} is not a plain name"
