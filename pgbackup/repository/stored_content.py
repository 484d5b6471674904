"""From the stored bytes of an object to its content: which encryption it has shows in its bytes, which compression its
extension promises, and the content has to keep that promise.

Encryption, in this order: libsodium, when a key is configured and the first chunk is authentic with it; GnuPG, when the
object begins with a session key packet that adds up in full (openpgp.py); none. With a key configured only that one
says who wrote an object: what is not encrypted is refused, unless that was allowed and its beginning proves what it
is, and so is what GnuPG encrypted, for anybody may have the public key. What fits nothing is refused in any case.
Whatever differs is a CorruptObject with the object's key.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from pgbackup.errors import CorruptObject, StorageError
from pgbackup.repository import (
    codec_brotli,
    codec_gzip,
    codec_lz4,
    codec_lzma,
    codec_lzop,
    codec_zstd,
    gpg,
    keys,
    openpgp,
)
from pgbackup.repository.secretstream import FIRST_CHUNK_BYTES, SecretStreamDecoder, SecretStreamProblem

Blocks = Iterator[bytes]
Problem = Callable[[str], Exception]
Note = Callable[[], None]

_READERS: Final[dict[str, Callable[[Blocks, Problem, Note], Blocks]]] = {
    "zst": codec_zstd.decode,
    "lz4": codec_lz4.decode,
    "br": codec_brotli.decode,
    "lzma": codec_lzma.decode,
    "gz": codec_gzip.decode,
    "lzo": codec_lzop.decode,
}
"""Extension -> from stored blocks to content. What a new format needs is an entry here, and its magic below."""

_MAGICS: Final = {
    "zst": codec_zstd.MAGIC,
    "lz4": codec_lz4.MAGIC,
    "br": codec_brotli.MAGIC,
    "lzma": codec_lzma.MAGIC,
    "gz": codec_gzip.MAGIC,
    "lzo": codec_lzop.MAGIC,
}


@dataclass(frozen=True, slots=True)
class Reading:
    """How objects may be stored: with ``secret`` (32 bytes, libsodium); with GnuPG and without encryption where there
    is no secret, or where that is accepted all the same."""

    secret: bytes | None = None
    accept_unencrypted: bool = False
    accept_gnupg: bool = False


def is_readable(extension: str) -> bool:
    """Whether objects with that extension can be decoded here (empty: uncompressed ones)."""
    if extension == "lzo":
        return codec_lzop.is_available()
    return not extension or extension in _READERS


def check_readable(key: str) -> None:
    """Raise StorageError when the library that an object needs is not installed."""
    extension = keys.split_extension(key)[1]
    if not is_readable(extension):
        raise StorageError(
            f"object {key} is compressed in a way that this installation cannot read",
            detail=f".{extension} needs a library that is not installed",
            hint=codec_lzop.HINT,
        )


def content_of(key: str, stored: Blocks, reading: Reading, on_unproven: Note) -> Generator[bytes, None, None]:
    """The content of object ``key``; ``on_unproven`` is called when neither encryption nor a checksum vouches for it.

    Raises CorruptObject for content that is damaged or not what the key promises, ToolError for what gpg lacks.
    """
    extension = keys.split_extension(key)[1]
    begin, stored = _look(stored, FIRST_CHUNK_BYTES if reading.secret is not None else 1)
    encrypted = True
    if reading.secret is not None and _is_ours(reading.secret, begin):
        plain = _decrypted(key, reading.secret, stored)
    elif openpgp.may_begin(begin):
        begin, stored = _look(stored, openpgp.LOOK_BYTES)
        is_message = openpgp.is_message(begin)
        if is_message:
            _check_gnupg(key, reading)
        plain = gpg.decrypted(key, stored) if is_message else _unencrypted(key, begin, stored, reading)
        encrypted = is_message
    else:
        plain, encrypted = _unencrypted(key, begin, stored, reading), False
    on_unproven = _nothing if encrypted else on_unproven
    try:
        yield from _expanded(key, extension, plain, on_unproven, reading, encrypted=encrypted)
    finally:
        for blocks in (plain, stored):
            _close(blocks)


def _nothing() -> None: ...


def _close(blocks: Blocks) -> None:
    close = getattr(blocks, "close", None)
    if close is not None:
        close()


def _look(stored: Blocks, wanted: int) -> tuple[bytes, Blocks]:
    """At least ``wanted`` bytes of the beginning (fewer when there are no more), and all blocks."""
    read = []
    size = 0
    while size < wanted and (block := next(stored, b"")):
        read.append(block)
        size += len(block)
    return b"".join(read), chain(read, stored)


def _is_ours(secret: bytes, begin: bytes) -> bool:
    """Whether the first encrypted chunk is authentic: then it was written with this key, without any doubt."""
    decoder = SecretStreamDecoder(secret)
    try:
        if not decoder.write(begin[:FIRST_CHUNK_BYTES]) and len(begin) < FIRST_CHUNK_BYTES:
            decoder.finish()
    except SecretStreamProblem as exc:
        return not exc.at_start
    return True


def _unencrypted(key: str, begin: bytes, stored: Blocks, reading: Reading) -> Blocks:
    """The blocks themselves, where that is allowed. Raises CorruptObject."""
    if reading.secret is None:
        return stored
    if reading.accept_unencrypted and _format_of(begin) == keys.split_extension(key)[1]:
        return stored
    return _decrypted(key, reading.secret, stored)


def _check_gnupg(key: str, reading: Reading) -> None:
    """Raise CorruptObject where a message would prove nothing of what is configured."""
    if reading.secret is not None and not reading.accept_gnupg:
        raise CorruptObject(
            key,
            "it is encrypted with GnuPG, not with the encryption key that is configured",
            hint="Was it stored before there was that key? Then PGBACKUP_ACCEPT_GNUPG=yes reads it.",
        )


def _expanded(
    key: str, extension: str, plain: Blocks, on_unproven: Note, reading: Reading, *, encrypted: bool
) -> Blocks:
    if not extension:
        on_unproven()
        return plain
    problem = _problem_of(key)
    if not _MAGICS[extension]:
        begin, plain = _look(plain, 16)
        found = _format_of(begin)
        if found is not None:
            problem = _explained(key, f"its content is .{found}, not .{extension}")
        elif not encrypted:
            problem = _explained(key, f"it is not .{extension}: encrypted, or damaged")
        if not begin:
            raise CorruptObject(key, "it is empty")
    else:
        may_be_secret = not encrypted and reading.secret is None
        plain = _checked(key, extension, plain, may_be_secret=may_be_secret)
    return _READERS[extension](plain, problem, on_unproven)


def _problem_of(key: str) -> Problem:
    return lambda problem: CorruptObject(key, problem)


def _explained(key: str, why: str) -> Problem:
    return lambda problem: CorruptObject(key, f"{why} ({problem})")


def _decrypted(key: str, secret: bytes, stored: Blocks) -> Blocks:
    """The decrypted blocks. Raises CorruptObject, which tells a plain object from a wrong key where that can be."""
    decoder = SecretStreamDecoder(secret)
    begin = b""
    try:
        for data in stored:
            begin = begin or data[:16]
            if plain := decoder.write(data):
                yield plain
        if plain := decoder.finish():
            yield plain
    except SecretStreamProblem as exc:
        raise _not_decrypted(key, begin, exc) from exc


def _not_decrypted(key: str, begin: bytes, problem: SecretStreamProblem) -> CorruptObject:
    if not problem.at_start or not begin:
        return CorruptObject(key, str(problem))
    if (found := _format_of(begin)) is not None and found == keys.split_extension(key)[1]:
        return CorruptObject(
            key,
            "it is not encrypted, but an encryption key is configured",
            hint="Was it stored before there was a key? Then PGBACKUP_ACCEPT_UNENCRYPTED=yes reads it.",
        )
    return CorruptObject(key, f"it was encrypted with another key, is not encrypted, or is damaged: {problem}")


def _checked(key: str, extension: str, blocks: Blocks, *, may_be_secret: bool) -> Blocks:
    """The same blocks, once their beginning is what the extension promises. Raises CorruptObject."""
    magic = _MAGICS[extension]
    begin, blocks = _look(blocks, len(magic))
    if begin.startswith(magic):
        return blocks
    found = _format_of(begin)
    if not begin:
        problem = "it is empty"
    elif found is not None:
        problem = f"its content is .{found}, not .{extension}"
    elif len(begin) < len(magic):
        problem = f"it is cut short: {len(begin)} bytes are not .{extension}"
    elif may_be_secret:
        problem = f"it is not .{extension}: encrypted (and no key is configured), or damaged"
    else:
        problem = f"its content is not .{extension}"
    raise CorruptObject(key, problem)


def _format_of(begin: bytes) -> str | None:
    """The extension of the format that bytes begin like, or None."""
    return next((extension for extension, magic in _MAGICS.items() if magic and begin.startswith(magic)), None)
