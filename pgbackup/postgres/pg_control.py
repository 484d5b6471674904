"""Read ``global/pg_control``: which cluster this is, and what a server that replays its WAL must not undercut.

Source: src/include/catalog/pg_control.h, ``ControlFileData``. Versions 1300 (PostgreSQL 13 to 16), 1700 and 1800 differ
only behind the fields that are read here, and in the place of the checksum. Little-endian, 8-byte alignment, as on
every platform that we support.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from pgbackup.core.backup import CONTROL_FILE
from pgbackup.core.lsn import Lsn, check_segment_bytes
from pgbackup.errors import PostgresError

CONTROL_FILE_BYTES = 8192

_STATES = (
    "starting up", "shut down", "shut down in recovery", "shutting down", "in crash recovery", "in archive recovery",
    "in production",
)  # fmt: skip
_CRC_OFFSETS = {1300: 288, 1700: 288, 1800: 292}
_HEAD = struct.Struct("<QIIi4xqQ")
_CHECKPOINT = struct.Struct("<QII")
_CHECKPOINT_OFFSET = 40
_MINIMA = struct.Struct("<iiiii")
_MINIMA_OFFSET = 180
_SEGMENT_BYTES_OFFSET = 228
MINIMA = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)
"""Settings that must not be lower on a server in recovery than they were when the WAL was written."""


@dataclass(frozen=True, slots=True)
class ControlFile:
    """What pg_control says; ``minima`` are the values of MINIMA when it was written."""

    system_identifier: int
    version: int
    catalog_version: int
    state: str
    redo_lsn: Lsn
    timeline: int
    segment_bytes: int
    minima: dict[str, int]


def read_control_file(data_directory: Path) -> ControlFile:
    """Parse the control file of a data directory. Raises PostgresError when it is missing or damaged."""
    path = data_directory / CONTROL_FILE
    try:
        return parse_control_file(path.read_bytes())
    except OSError as exc:
        raise PostgresError(f"cannot read {path}", detail=exc.strerror or str(exc)) from exc
    except ValueError as exc:
        raise PostgresError(f"{path} is damaged", detail=str(exc)) from exc


def parse_control_file(data: bytes) -> ControlFile:
    """Parse pg_control's bytes, checksum included. Raises ValueError."""
    if len(data) != CONTROL_FILE_BYTES:
        raise ValueError(f"it has {len(data)} bytes instead of {CONTROL_FILE_BYTES}")
    system, version, catalog_version, state, _, _ = _HEAD.unpack_from(data)
    crc_offset = _CRC_OFFSETS.get(version)
    if crc_offset is None:
        raise ValueError(f"its format is {version}; known are {', '.join(map(str, _CRC_OFFSETS))}")
    (stored,) = struct.unpack_from("<I", data, crc_offset)
    if crc32c(data[:crc_offset]) != stored:
        raise ValueError("its checksum does not fit")
    redo, timeline, _ = _CHECKPOINT.unpack_from(data, _CHECKPOINT_OFFSET)
    (segment_bytes,) = struct.unpack_from("<I", data, _SEGMENT_BYTES_OFFSET)
    return ControlFile(
        system_identifier=system,
        version=version,
        catalog_version=catalog_version,
        state=_STATES[state] if 0 <= state < len(_STATES) else str(state),
        redo_lsn=Lsn(redo),
        timeline=timeline,
        segment_bytes=check_segment_bytes(segment_bytes),
        minima=dict(zip(MINIMA, _MINIMA.unpack_from(data, _MINIMA_OFFSET), strict=True)),
    )


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc32c_table()


def crc32c(data: bytes) -> int:
    """CRC-32C of a few hundred bytes (src/port/pg_crc32c_sb8.c has the same polynomial)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
