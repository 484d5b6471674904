"""Postgres' backup_manifest: the end-to-end proof of a base backup, read as a stream.

Source: the Postgres manual, "Backup Manifest Format". It is one JSON document, but the server writes each file on a
line of its own (all versions from 13 to 18), so it is read line by line and memory does not grow with the number of
files. The last line holds the SHA-256 of everything before it. The only importer of crc32c.
"""

from __future__ import annotations

import binascii
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import crc32c

from pgbackup.core.lsn import Lsn
from pgbackup.errors import CorruptObject
from pgbackup.repository.text_lines import iter_line_bytes
from pgbackup.storage.base import ByteStream

_TOO_LARGE = 1 << 63
_CHECKSUM_LINE = b'"Manifest-Checksum"'


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...

    def hexdigest(self) -> str: ...


class _NoHash:
    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str:
        return ""


class _Crc32c:
    """CRC-32C as Postgres prints it: the bytes of the little-endian number."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = crc32c.crc32c(data, self._value)

    def hexdigest(self) -> str:
        return self._value.to_bytes(4, "little").hex()


class FileChecksum:
    """A checksum of one file, by the manifest's name of the algorithm: NONE, CRC32C, SHA224 to SHA512.

    Raises ValueError for another algorithm.
    """

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        if algorithm == "CRC32C":
            self._hash: _Hash = _Crc32c()
        elif algorithm in {"SHA224", "SHA256", "SHA384", "SHA512"}:
            self._hash = hashlib.new(algorithm.lower())
        elif algorithm in {"NONE", ""}:
            self._hash = _NoHash()
        else:
            raise ValueError(f"unknown checksum algorithm {algorithm!r}")
        self.update: Callable[[bytes | memoryview], None] = self._hash.update
        """Takes the next bytes of the file. It is called for every 32 KiB of a backup: hence not one call more."""

    def hexdigest(self) -> str:
        """Lower-case hexadecimal; empty for NONE."""
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file: its path below the data directory (bytes that are not UTF-8 kept as surrogates), bytes, checksum."""

    path: str
    size_bytes: int
    checksum_algorithm: str
    checksum: str


@dataclass(frozen=True, slots=True)
class WalRange:
    """WAL that the backup needs."""

    timeline: int
    start: Lsn
    end: Lsn


class ManifestReader:
    """Iterate over the files of a manifest; afterwards ``wal_ranges`` and ``system_identifier`` (from 17 on) are set.

    Iterating raises CorruptObject, naming ``key``, for anything that is not a whole manifest.
    """

    def __init__(self, key: str, stream: ByteStream) -> None:
        self._key = key
        self._stream = stream
        self._hash = hashlib.sha256()
        self._version = 0
        self.wal_ranges: list[WalRange] = []
        self.system_identifier: int | None = None

    def __iter__(self) -> Iterator[ManifestFile]:
        try:
            yield from self._files()
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
            raise CorruptObject(self._key, f"not a backup manifest ({exc})") from exc

    def _files(self) -> Iterator[ManifestFile]:
        section, ended = "", False
        for line in iter_line_bytes(self._key, self._stream):
            if ended:
                raise ValueError("bytes follow its checksum")
            if line.startswith(_CHECKSUM_LINE):
                self._check(line)
                ended = True
                continue
            self._hash.update(line)
            text = line.strip().rstrip(b",")
            if text.endswith(b": ["):
                section = text.split(b'"')[1].decode()
            elif text == b"]":
                section = ""
            elif section == "Files":
                yield _file(json.loads(text))
            elif section == "WAL-Ranges":
                self._add_range(json.loads(text))
            else:
                self._on_field(text)
        if not ended:
            raise ValueError("it is cut: its checksum is missing")

    def _on_field(self, text: bytes) -> None:
        name, _, value = text.lstrip(b"{ ").partition(b":")
        if name == b'"System-Identifier"':
            self.system_identifier = int(value)
        elif name == b'"PostgreSQL-Backup-Manifest-Version"' and int(value) in (1, 2):
            self._version = int(value)
        else:
            raise ValueError(f"unexpected line {text[:60]!r}")

    def _add_range(self, row: dict[str, Any]) -> None:
        self.wal_ranges.append(WalRange(int(row["Timeline"]), Lsn.parse(row["Start-LSN"]), Lsn.parse(row["End-LSN"])))

    def _check(self, line: bytes) -> None:
        if not self._version:
            raise ValueError("it does not name its version")
        stored = json.loads(b"{" + line.strip())["Manifest-Checksum"]
        if stored != self._hash.hexdigest():
            raise ValueError("its own checksum does not fit")


def iter_manifest(stream: ByteStream, key: str = "backup_manifest") -> ManifestReader:
    """The files of a manifest, one after the other; ``key`` names the object in errors."""
    return ManifestReader(key, stream)


def _file(row: dict[str, Any]) -> ManifestFile:
    path = row.get("Path")
    if path is None:
        path = binascii.unhexlify(row["Encoded-Path"]).decode("utf-8", "surrogateescape")
    size = row["Size"]
    if not isinstance(path, str) or not path or type(size) is not int or not 0 <= size < _TOO_LARGE:
        raise ValueError("a file's path or size is not one")
    return ManifestFile(path, size, str(row.get("Checksum-Algorithm", "NONE")), str(row.get("Checksum", "")).lower())
