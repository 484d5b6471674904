"""Names of everything in a repository, relative to its prefix (WAL-G's layout; ours on top).

Keys of ours under ``pgbackup_005/`` never hold a run of 24 hexadecimal digits: ``wal-g delete`` looks at every object
below the prefix whose path has one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from pgbackup.core.lsn import Lsn, SegmentName

BASEBACKUPS = "basebackups_005/"
WAL = "wal_005/"
BOOKKEEPING = "pgbackup_005/"
SENTINEL_SUFFIX = "_backup_stop_sentinel.json"
EXTENSIONS = ("lz4", "zst", "br", "lzma", "lzo", "gz")

CLUSTER = BOOKKEEPING + "cluster.json"
KEY_CHECK = BOOKKEEPING + "keycheck"
STATUS = BOOKKEEPING + "status.json"
LEASE = BOOKKEEPING + "lease.json"
INTENTS = BOOKKEEPING + "intents/"
TIMELINES = BOOKKEEPING + "timelines/"
FENCES = BOOKKEEPING + "fences/"
MARKS = BOOKKEEPING + "marks/"
GAPS = BOOKKEEPING + "gaps/"
VERIFICATION = BOOKKEEPING + "verification.json"
ALERTS = BOOKKEEPING + "alerts.json"
EXPIRY = BOOKKEEPING + "expiry.json"
SEEN_BACKUPS = BOOKKEEPING + "backups.json"

_PIECE = re.compile(r"^([0-9A-F]{24})\.partial/([0-9A-F]{8})-([0-9A-F]{8})(?:\.([a-z0-9]+))?$")
_OF_SEGMENT = re.compile(r"^([0-9A-F]{24})(?:[._/]|$)")
_INTENT = re.compile(r"^([0-9A-F]{8})-([0-9A-F]{16})\.json$")
_MARK = re.compile(r"^(\d{8}T\d{6}\.\d{6}Z)-([0-9A-F]{8})-([0-9A-F]{16})$")
_MARK_TIME = "%Y%m%dT%H%M%S.%fZ"


def with_extension(key: str, extension: str) -> str:
    """``key.ext``, or the bare key for uncompressed objects."""
    return f"{key}.{extension}" if extension else key


def split_extension(name: str) -> tuple[str, str]:
    """``("0000…01", "zst")`` for a known compression's extension, else (name without a trailing dot, "")."""
    stem, dot, extension = name.rpartition(".")
    if dot and extension in EXTENSIONS:
        return stem, extension
    return (stem, "") if dot and not extension else (name, "")


# -- base backups -----------------------------------------------------------------------------------------------


def backup_name(timeline: int, start_lsn: int, segment_bytes: int) -> str:
    """``base_`` + the name of the segment of the start LSN: the whole name, no suffix (WAL-G's rule)."""
    return f"base_{SegmentName.containing(timeline, start_lsn, segment_bytes)}"


def sentinel(backup: str) -> str:
    return f"{BASEBACKUPS}{backup}{SENTINEL_SUFFIX}"


def backup_folder(backup: str) -> str:
    return f"{BASEBACKUPS}{backup}/"


def metadata(backup: str) -> str:
    return f"{BASEBACKUPS}{backup}/metadata.json"


def extended_version(backup: str) -> str:
    """WAL-E's note of the server's version."""
    return f"{BASEBACKUPS}{backup}/extended_version.txt"


def files_metadata(backup: str) -> str:
    return f"{BASEBACKUPS}{backup}/files_metadata.json"


def tar_folder(backup: str) -> str:
    return f"{BASEBACKUPS}{backup}/tar_partitions/"


def part(backup: str, number: int, extension: str) -> str:
    """Data part ``number``, from 1."""
    return with_extension(f"{tar_folder(backup)}part_{number:03d}.tar", extension)


def control_tar(backup: str, extension: str) -> str:
    """The tar that holds only ``global/pg_control``, restored last."""
    return with_extension(f"{tar_folder(backup)}pg_control.tar", extension)


def manifest(backup: str, extension: str) -> str:
    """Postgres' own backup_manifest, compressed and encrypted like the parts."""
    return with_extension(f"{BASEBACKUPS}{backup}/backup_manifest", extension)


# -- WAL --------------------------------------------------------------------------------------------------------


def wal(name: str, extension: str) -> str:
    """A whole segment, a history file, or whatever ``archive_command`` names."""
    return with_extension(f"{WAL}{name}", extension)


def wal_file(key: str) -> tuple[str, str]:
    """(name, extension) of the file that an object below ``wal_005/`` holds."""
    return split_extension(key.removeprefix(WAL))


def before_segment(segment: str) -> str:
    """Sorts before every object of that segment, with whatever extension, and after those of the one before it."""
    key = f"{WAL}{segment}"
    return f"{key[:-1]}{chr(ord(key[-1]) - 1)}~"


def pieces_folder(segment: str) -> str:
    return f"{WAL}{segment}.partial/"


def piece(segment: str, first: int, end: int, extension: str) -> str:
    """Bytes ``[first, end)`` of an open segment, as offsets in it."""
    return with_extension(f"{pieces_folder(segment)}{first:08X}-{end:08X}", extension)


@dataclass(frozen=True, slots=True)
class PieceName:
    """A stored piece of an open segment: offsets ``[first, end)`` in the segment, and the object's key."""

    segment: str
    first: int
    end: int
    key: str


def wal_segment(key: str) -> str | None:
    """The segment that an object below ``wal_005/`` belongs to, by its first 24 digits: a whole segment, a piece,
    a backup label, whatever else is named for it; None for histories and strangers."""
    match = _OF_SEGMENT.match(key.removeprefix(WAL)) if key.startswith(WAL) else None
    return match[1] if match else None


def parse_piece(key: str) -> PieceName | None:
    """The piece that a key names, or None."""
    match = _PIECE.match(key.removeprefix(WAL)) if key.startswith(WAL) else None
    if match is None or int(match[3], 16) <= int(match[2], 16):
        return None
    return PieceName(match[1], int(match[2], 16), int(match[3], 16), key)


# -- our bookkeeping --------------------------------------------------------------------------------------------


def intent(timeline: int, segment_start: int) -> str:
    """The claim of the one base backup that may have the name of that segment."""
    return f"{INTENTS}{timeline:08X}-{segment_start:016X}.json"


def gap(timeline: int, start: int, end: int) -> str:
    """An entry of the ledger of gaps."""
    return f"{GAPS}{timeline:08X}-{start:016X}-{end:016X}.json"


def parse_intent(key: str) -> tuple[int, Lsn] | None:
    """(timeline, start of the backup's first segment) of an intent's key, or None."""
    match = _INTENT.match(key.removeprefix(INTENTS)) if key.startswith(INTENTS) else None
    return (int(match[1], 16), Lsn(int(match[2], 16))) if match else None


def timeline_claim(timeline: int) -> str:
    return f"{TIMELINES}{timeline:08X}.json"


def fence(timeline: int) -> str:
    """Which streaming session was the last to begin on a timeline."""
    return f"{FENCES}{timeline:08X}"


def mark(server_time: datetime, timeline: int, lsn: int) -> str:
    """A time mark: when the server's clock showed ``server_time``, WAL to ``lsn`` existed and was durable.

    Everything is in the name, so that a listing reads all marks.
    """
    return f"{MARKS}{server_time.astimezone(UTC).strftime(_MARK_TIME)}-{timeline:08X}-{lsn:016X}"


def marks_until(moment: datetime) -> str:
    """What sorts after every mark of ``moment`` and earlier ones, and before those of later moments."""
    return f"{MARKS}{moment.astimezone(UTC).strftime(_MARK_TIME)}~"


def parse_mark(key: str) -> tuple[datetime, int, Lsn] | None:
    """(server time, timeline, LSN) of a time mark's key, or None."""
    match = _MARK.match(key.removeprefix(MARKS)) if key.startswith(MARKS) else None
    if match is None:
        return None
    try:
        moment = datetime.strptime(match[1], _MARK_TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return moment, int(match[2], 16), Lsn(int(match[3], 16))
