"""The messages of BASE_BACKUP, as pure functions.

Source: the Postgres manual, "Streaming Replication Protocol", ``BASE_BACKUP``. From 15 on one COPY carries everything,
each CopyData payload with a type byte: ``n`` a new archive (name and path, each ended by a zero byte), ``m`` the
manifest follows, ``d`` data of either, ``p`` progress (64 bits, big-endian). 14 sends a COPY of plain tar bytes for
each archive, in the order of its tablespace list, then one for the manifest, and takes the old keyword syntax.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

_PROGRESS = struct.Struct(">Q")
DATA = ord("d")
"""The type byte of nearly every message from 15 on."""

_CHECKSUM_FAILURE = re.compile(r"checksum verification fail")
_QUOTED_PATH = re.compile(r"""["'«»„“”]\s?((?:\./)?(?:base|global|pg_tblspc)/[^"'«»„“”]+?)\s?["'«»„“”]""")
_ANY_PATH = re.compile(r"""["'«»„“”]\s?\./([^"'«»„“”]+?)\s?["'«»„“”]""")
_MAX_WARNED = 10_000
_BLOCK = re.compile(r"\bblock (\d+)")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]+")
_MIN_RATE_KIB, _MAX_RATE_KIB = 32, 1024 * 1024
_LABEL_CHARACTERS = 200
UNNAMED = "(not named by the server)"


@dataclass(frozen=True, slots=True)
class ArchiveBegins:
    """A tar archive: the data directory (``oid`` None) or a tablespace."""

    oid: int | None


@dataclass(frozen=True, slots=True)
class ManifestBegins:
    """What follows is the backup_manifest."""


BackupMessage = ArchiveBegins | ManifestBegins | memoryview
"""A memoryview holds bytes of the archive or the manifest that began last."""


@dataclass(frozen=True, slots=True)
class BaseBackupOptions:
    """What is asked of the server; ``max_rate_bytes`` a second, or None for no limit."""

    label: str
    max_rate_bytes: int | None = None


def format_command(options: BaseBackupOptions, major: int) -> str:
    """The BASE_BACKUP command of a major version.

    It never waits for the server's own archiving: a failing archive_command would hang the copy for ever. Page
    checksums are verified unless told otherwise, by all versions.
    """
    label = "'" + format_label(options.label).replace("'", "''") + "'"
    rate = _rate_kib(options.max_rate_bytes)
    if major >= 15:
        wanted = [
            f"LABEL {label}", "PROGRESS", "CHECKPOINT 'fast'", "WAIT false", "TABLESPACE_MAP", "MANIFEST 'yes'",
            "MANIFEST_CHECKSUMS 'CRC32C'", "VERIFY_CHECKSUMS true",
        ]  # fmt: skip
        if rate is not None:
            wanted.append(f"MAX_RATE {rate}")
        return f"BASE_BACKUP ({', '.join(wanted)})"
    limit = "" if rate is None else f" MAX_RATE {rate}"
    return (
        f"BASE_BACKUP LABEL {label} PROGRESS FAST NOWAIT{limit} TABLESPACE_MAP "
        "MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"
    )


def format_label(text: str) -> str:
    """A label as backup_label can hold it: one line, not too long."""
    return _CONTROL_CHARACTERS.sub(" ", text)[:_LABEL_CHARACTERS]


def parse_copy_message(message: memoryview) -> BackupMessage | int:
    """One CopyData payload of 15 and later; an int is the number of bytes done so far. Raises ValueError."""
    kind = message[0] if message else 0
    if kind == DATA:
        return message[1:]
    if kind == ord("n"):
        name = message[1:].tobytes().split(b"\0", 1)[0].decode("utf-8", "replace")
        return ArchiveBegins(_archive_oid(name))
    if kind == ord("m"):
        return ManifestBegins()
    if kind == ord("p") and len(message) == 1 + _PROGRESS.size:
        return int(_PROGRESS.unpack_from(message, 1)[0])
    raise ValueError(f"unknown message of {len(message)} bytes in the base backup: {bytes(message[:1])!r}")


def _archive_oid(name: str) -> int | None:
    if name == "base.tar":
        return None
    stem, dot, extension = name.partition(".")
    if not (stem.isdecimal() and dot and extension == "tar"):
        raise ValueError(f"unknown archive in the base backup: {name!r}")
    return int(stem)


def _rate_kib(rate_bytes: int | None) -> int | None:
    """MAX_RATE, in KiB a second; above what it takes there is no limit."""
    if rate_bytes is None or rate_bytes > _MAX_RATE_KIB * 1024:
        return None
    return max(rate_bytes // 1024, _MIN_RATE_KIB)


@dataclass
class PageWarnings:
    """The server's warnings about pages, file by file with the blocks that it named.

    Where the server speaks another language than English a warning is known by its path alone; whether any was about
    a checksum says the error at the end, which has an SQLSTATE.

    ``warned``: the paths that any warning named. What is a file that was sent has bad pages; what was not sent was left
    out: the server follows no link but those of tablespaces (sendDir in src/backend/backup/basebackup.c).
    """

    warned: set[str] = field(default_factory=set)

    _certain: dict[str, list[int]] = field(default_factory=dict)
    _possible: dict[str, list[int]] = field(default_factory=dict)

    def add(self, text: str) -> None:
        """Take a WARNING of the server."""
        if (any_path := _ANY_PATH.search(text)) is not None and len(self.warned) < _MAX_WARNED:
            self.warned.add(any_path[1])
        path = _QUOTED_PATH.search(text)
        if path is None:
            return
        found = self._certain if _CHECKSUM_FAILURE.search(text) else self._possible
        blocks = found.setdefault(path[1].removeprefix("./"), [])
        if (block := _BLOCK.search(text)) is not None:
            blocks.append(int(block[1]))

    def damaged(self) -> dict[str, list[int]]:
        """Files with wrong checksums and their known blocks, once the server has said that there are some."""
        return self._certain or self._possible or {UNNAMED: []}
