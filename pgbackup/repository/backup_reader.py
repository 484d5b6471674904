"""One backup from its sentinel and metadata.json, whoever wrote them.

metadata.json is the truth where it exists (permanence is only there); WAL-E has none, and its sentinel knows neither
times nor LSNs, so they come from the name and from the sentinel's age in the store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pgbackup.core.catalog import Backup, Tablespace
from pgbackup.core.lsn import DEFAULT_SEGMENT_BYTES, Lsn, SegmentName, check_segment_bytes
from pgbackup.errors import CorruptObject
from pgbackup.repository import keys
from pgbackup.repository.documents import EXTRAS_KEY, parse_object

_NAME = re.compile(r"^base_([0-9A-F]{24})(_D_[0-9A-F]{24})?(_[0-9A-F]{8})?$")
_EPOCH = datetime.fromtimestamp(0, UTC)


def parse_backup(name: str, modified: datetime, sentinel: bytes, metadata: bytes | None) -> Backup:
    """The backup that the documents describe; ``modified``: the sentinel's age. Raises CorruptObject."""
    match = _NAME.match(name)
    if match is None:
        raise CorruptObject(keys.sentinel(name), "its name is not a backup's")
    seal = parse_object(keys.sentinel(name), sentinel)
    details = parse_object(keys.metadata(name), metadata) if metadata is not None else {}
    try:
        return _backup(name, match, modified, seal, details)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as exc:
        raise CorruptObject(keys.sentinel(name), f"not a backup's documents ({exc})") from exc


def unreadable_backup(name: str, modified: datetime, problem: str) -> Backup:
    """A backup whose documents cannot be read: listed, with the reason, and never restored."""
    zero = Lsn(0)
    return Backup(name, 0, zero, zero, _EPOCH, _EPOCH, modified, 0, 0, 0, 0, "unknown", problem=problem)


def extras_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Our part of the user data of a sentinel or metadata.json; empty for backups of other tools."""
    user_data = document.get("UserData", document.get("user_data"))
    extras = user_data.get(EXTRAS_KEY) if isinstance(user_data, dict) else None
    return extras if isinstance(extras, dict) else {}


def segment_bytes_of(sentinel: bytes) -> int | None:
    """The segment size that a sentinel of ours names, or None."""
    try:
        return check_segment_bytes(int(extras_of(parse_object("", sentinel))["segment_bytes"]))
    except (CorruptObject, KeyError, ValueError, TypeError):
        return None


def _backup(
    name: str, match: re.Match[str], modified: datetime, seal: dict[str, Any], details: dict[str, Any]
) -> Backup:
    extras = extras_of(seal) or extras_of(details)
    segment_bytes = check_segment_bytes(int(extras.get("segment_bytes", DEFAULT_SEGMENT_BYTES)))
    segment = SegmentName.parse(match[1], segment_bytes)
    wal_e = match[3] is not None and "LSN" not in seal
    start = seal.get("LSN", details.get("start_lsn"))
    stop = seal.get("FinishLSN", details.get("finish_lsn"))
    finished = _time(details.get("finish_time", seal.get("FinishTime"))) or modified
    corrupt = extras.get("corrupt_files") or {}
    return Backup(
        name=name,
        timeline=segment.timeline,
        start_lsn=Lsn(int(start)) if start is not None else segment.start,
        stop_lsn=Lsn(int(stop)) if stop is not None else _wal_e_stop(seal, segment),
        started=_time(details.get("start_time", seal.get("StartTime"))) or finished,
        finished=finished,
        modified=modified,
        system_identifier=int(seal.get("SystemIdentifier") or details.get("system_identifier") or 0),
        pg_version=int(seal.get("PgVersion") or details.get("pg_version") or 0),
        raw_bytes=int(seal.get("UncompressedSize") or seal.get("expanded_size_bytes") or 0),
        stored_bytes=int(seal.get("CompressedSize") or 0),
        engine="pgbackup" if extras else "wal-e" if wal_e else "wal-g",
        permanent=details.get("is_permanent") is True,
        label=str(extras.get("label", "")),
        hostname=str(seal.get("Hostname") or ""),
        data_directory=str(seal.get("DataDir") or ""),
        tablespaces=_tablespaces(seal.get("Spec", seal.get("spec"))),
        wal_tail=extras.get("wal_tail") is True,
        corrupt_files=tuple(sorted(str(file) for file in corrupt)),
        delta_of=str(seal["DeltaFrom"]) if seal.get("DeltaFrom") else None,
        problem="delta backups cannot be restored by this version" if seal.get("DeltaFrom") else "",
    )


def _wal_e_stop(seal: dict[str, Any], segment: SegmentName) -> Lsn:
    """WAL-E names the stop segment and the offset in it."""
    name, offset = seal.get("wal_segment_backup_stop"), seal.get("wal_segment_offset_backup_stop")
    if not name:
        return segment.end
    return Lsn(SegmentName.parse(str(name), segment.segment_bytes).start + int(str(offset or "0")))


def _time(value: object) -> datetime | None:
    if not value:
        return None
    moment = datetime.fromisoformat(str(value))
    if moment.tzinfo is None:
        raise ValueError(f"a time without zone: {value}")
    return moment.astimezone(UTC)


def _tablespaces(spec: object) -> tuple[Tablespace, ...]:
    if not isinstance(spec, dict):
        return ()
    return tuple(Tablespace(int(name), str(spec[str(name)]["loc"])) for name in spec.get("tablespaces") or [])
