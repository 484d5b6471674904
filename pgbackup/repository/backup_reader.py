"""One backup from its sentinel and metadata.json, whoever wrote them.

The name says whose it is: ``base_<segment>`` is a full backup, ``_D_<parent's segment>`` behind it makes it a delta of
WAL-G, eight digits at the end are WAL-E's offset. metadata.json is the truth where it exists (permanence is kept only
there), but our own sentinel holds a checksum and comes first; WAL-E has none, and its sentinel knows neither times nor
LSNs: they come from the name and the sentinel's age.

A backup whose documents cannot be read is still listed, with its problem.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pgbackup.core.backup import OID, Backup, Tablespace
from pgbackup.core.lsn import (
    DEFAULT_SEGMENT_BYTES,
    MAX_SEGMENT_BYTES,
    MIN_SEGMENT_BYTES,
    Lsn,
    SegmentName,
    check_segment_bytes,
)
from pgbackup.errors import CorruptObject
from pgbackup.repository import keys
from pgbackup.repository.codec import is_readable
from pgbackup.repository.codec_lzop import HINT
from pgbackup.repository.documents import EXTRAS_KEY, SEALED_FORMAT, is_as_sealed
from pgbackup.repository.json_object import JsonObject

_NAME = re.compile(r"base_([0-9A-F]{24})(?:_D_([0-9A-F]{24}))?(_[0-9A-F]{8})?")
_VERSION = re.compile(r"PostgreSQL (\d{1,2})(?:\.(\d{1,3}))?(?:\.(\d{1,3}))?")
_OFFSET = re.compile(r"[0-9]{1,10}")
_EPOCH = datetime.fromtimestamp(0, UTC)
_WAL_E_EXTENSION = "lzo"
_OLDEST_VERSION = 130000
_LABEL_CHARACTERS = 200
_BY_HAND = "Restore it with the tool that wrote it (backup-fetch), and remove it by hand when nobody needs it any more."
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadBackup:
    """A backup, and the segment size that its documents prove (None: they leave it open)."""

    backup: Backup
    segment_bytes: int | None


def is_wal_e(name: str) -> bool:
    """Whether a backup's name is one that WAL-E gives."""
    match = _NAME.fullmatch(name)
    return match is not None and match[3] is not None and match[2] is None


def read_backup(
    name: str, modified: datetime, sentinel: bytes, metadata: bytes | None, version_text: str = ""
) -> ReadBackup:
    """The backup that the documents describe; ``modified``: the sentinel's age. Never raises for what they hold.

    ``version_text``: WAL-E's extended_version.txt, what the server said of its version.
    """
    try:
        return _read(name, modified, sentinel, metadata, version_text)
    except CorruptObject as exc:
        return ReadBackup(unreadable_backup(name, modified, str(exc)), None)


def unreadable_backup(name: str, modified: datetime, problem: str) -> Backup:
    """A backup whose documents cannot be read: listed, with the reason, and never restored."""
    match = _NAME.fullmatch(name)
    timeline, zero = int(match[1][:8], 16) if match else 0, Lsn(0)
    return Backup(name, timeline, zero, zero, _EPOCH, _EPOCH, modified, 0, 0, 0, 0, "unknown", problem=problem)


def extras_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Our part of the user data of a sentinel or metadata.json; empty for backups of other tools."""
    user_data = document.get("UserData", document.get("user_data"))
    extras = user_data.get(EXTRAS_KEY) if isinstance(user_data, dict) else None
    return extras if isinstance(extras, dict) else {}


def _read(name: str, modified: datetime, sentinel: bytes, metadata: bytes | None, version_text: str) -> ReadBackup:
    match = _NAME.fullmatch(name)
    if match is None:
        raise CorruptObject(keys.sentinel(name), "its name is not a backup's")
    seal = JsonObject.parse(keys.sentinel(name), sentinel)
    details, is_damaged = _metadata(name, metadata)
    extras = _extras(name, seal) or _extras(name, details)
    _check_seal(name, sentinel, seal, extras)
    documents = _Documents(name, match, seal, details, extras, version_text)
    backup = documents.backup(modified, permanent=is_damaged or documents.permanent())
    return ReadBackup(backup, documents.proven_segment_bytes())


def _metadata(name: str, data: bytes | None) -> tuple[JsonObject, bool]:
    """metadata.json, and whether it is damaged. A restore does not need it, so damage does not condemn the backup."""
    empty = JsonObject(keys.metadata(name), {})
    if data is None:
        return empty, False
    try:
        return JsonObject.parse(keys.metadata(name), data), False
    except CorruptObject as exc:
        _log.warning("%s; backup %s counts as permanent until that is mended", exc, name)
        return empty, True


def _extras(name: str, document: JsonObject) -> JsonObject | None:
    user_data = document.value("UserData") or document.value("user_data")
    extras = user_data.get(EXTRAS_KEY) if isinstance(user_data, dict) else None
    return JsonObject(keys.sentinel(name), extras) if isinstance(extras, dict) else None


def _check_seal(name: str, sentinel: bytes, seal: JsonObject, extras: JsonObject | None) -> None:
    """Raises CorruptObject for a sentinel of ours that is not as it was written, though it may still be read."""
    own = _extras(name, seal)
    checksum = own.text("sha256") if own is not None else ""
    is_ours = extras is not None and (extras.integer("format") or 0) >= SEALED_FORMAT
    if (is_ours or checksum) and not is_as_sealed(sentinel, checksum):
        raise CorruptObject(keys.sentinel(name), "it is not as it was written: its checksum is another")


@dataclass(frozen=True, slots=True)
class _Documents:
    """What there is about one backup; each method reads one fact from where it is best known."""

    name: str
    match: re.Match[str]
    seal: JsonObject
    details: JsonObject
    extras: JsonObject | None
    version_text: str

    def backup(self, modified: datetime, *, permanent: bool) -> Backup:
        seal, details = self.seal, self.details
        segment = self._segment()
        finished = self._moment("FinishTime", "finish_time") or modified
        extras = self.extras or JsonObject(self.name, {})
        corrupt = extras.value("corrupt_files")
        start, stop = self._start(segment), self._stop(segment)
        problem, needs = self._unreadable_here() or (self._problem(start, stop), "")
        return Backup(
            name=self.name,
            timeline=int(self.match[1][:8], 16),
            start_lsn=start,
            stop_lsn=stop,
            started=self._moment("StartTime", "start_time") or finished,
            finished=finished,
            modified=modified,
            system_identifier=seal.integer("SystemIdentifier") or details.integer("system_identifier") or 0,
            pg_version=self._pg_version(),
            raw_bytes=seal.integer("UncompressedSize") or seal.integer("expanded_size_bytes") or 0,
            stored_bytes=seal.integer("CompressedSize") or 0,
            engine=self._engine(),
            permanent=permanent,
            label=self._label(),
            hostname=seal.text("Hostname"),
            data_directory=seal.text("DataDir"),
            tablespaces=self._tablespaces(),
            wal_tail=extras.flag("wal_tail") or False,
            corrupt_files=tuple(sorted(map(str, corrupt))) if isinstance(corrupt, list | dict) else (),
            delta_of=seal.text("DeltaFrom") or None,
            delta_lsn=self._delta_lsn(),
            data_bytes=seal.integer("DataCatalogSize") or 0,
            problem=problem,
            needs=needs,
        )

    def _unreadable_here(self) -> tuple[str, str] | None:
        """What pgbackup cannot restore though the backup may be whole, and what to do; None when there is nothing."""
        version = self._pg_version()
        if 0 < version < _OLDEST_VERSION:
            text = f"{version // 10000}" if version >= 100000 else f"{version // 10000}.{version // 100 % 100}"
            return (
                f"it is of PostgreSQL {text}, and {_OLDEST_VERSION // 10000} is the oldest that is restored",
                _BY_HAND,
            )
        if self._engine() != "wal-e":
            return None
        if not is_readable(_WAL_E_EXTENSION):
            return "WAL-E's lzop objects need a library that is not installed", HINT
        if self._begins_where_it_ends():
            return (
                "it was taken with --while-offline, and WAL-E names such backups wrongly, so its WAL is not known",
                _BY_HAND,
            )
        return None

    def _begins_where_it_ends(self) -> bool:
        """Whether WAL-E noted one place twice, as far as it can be read: no backup of a running server does."""
        offset = self.seal.text("wal_segment_offset_backup_stop")
        is_same = offset == (self.match[3] or "")[1:] or not _OFFSET.fullmatch(offset)
        return is_same and self.seal.text("wal_segment_backup_stop") == self.match[1]

    def _label(self) -> str:
        """Part of our user data; that of WAL-G's backups may be anything, and holds it where the engine took them."""
        if self.extras is not None:
            return _one_short_line(self.extras.text("label"))
        user_data = self.seal.value("UserData") or self.details.value("user_data")
        label = user_data.get("label") if isinstance(user_data, dict) else None
        return _one_short_line(label) if isinstance(label, str) else ""

    def _moment(self, in_seal: str, in_details: str) -> datetime | None:
        """Our sentinel vouches for itself; with the other tools metadata.json is the truth."""
        if self.extras is not None and (found := self.seal.moment(in_seal)) is not None:
            return found
        return self.details.moment(in_details) or self.seal.moment(in_seal)

    def _pg_version(self) -> int:
        return self.seal.integer("PgVersion") or self.details.integer("pg_version") or _version(self.version_text)

    def _delta_lsn(self) -> Lsn | None:
        """Where the parent began; the field had another name before WAL-G 1.0."""
        found = self.seal.integer("DeltaLSN")
        found = found if found is not None else self.seal.integer("DeltaFromLSN")
        return Lsn(found) if found is not None else None

    def permanent(self) -> bool:
        known = self.details.flag("is_permanent")
        return known if known is not None else self.seal.flag("IsPermanent") or False

    def proven_segment_bytes(self) -> int | None:
        """The segment size: our own documents name it, WAL-G's prove it by name and start LSN."""
        if self.extras is not None and (size := self.extras.integer("segment_bytes")) is not None:
            try:
                return check_segment_bytes(size)
            except ValueError as exc:
                raise CorruptObject(keys.sentinel(self.name), str(exc)) from exc
        lsn = self._start_lsn()
        if lsn is None:
            return None
        fitting = [size for size in _sizes() if self._is_named_for(lsn, size)]
        return fitting[0] if len(fitting) == 1 else None

    def _is_named_for(self, lsn: int, size: int) -> bool:
        """Whether the name is the segment of an LSN; WAL-G on a standby names the one of the byte before."""
        timeline = int(self.match[1][:8], 16)
        return any(str(SegmentName.containing(timeline, at, size)) == self.match[1] for at in (lsn, max(lsn - 1, 0)))

    def _segment(self) -> SegmentName | None:
        lsn = self._start_lsn()
        size = self.proven_segment_bytes() or DEFAULT_SEGMENT_BYTES
        try:
            return SegmentName.parse(self.match[1], size)
        except ValueError as exc:
            if lsn is not None:
                return None
            raise CorruptObject(keys.sentinel(self.name), str(exc)) from exc

    def _start_lsn(self) -> int | None:
        found = self.seal.integer("LSN")
        return found if found is not None else self.details.integer("start_lsn")

    def _stop_lsn(self) -> int | None:
        found = self.seal.integer("FinishLSN")
        return found if found is not None else self.details.integer("finish_lsn")

    def _start(self, segment: SegmentName | None) -> Lsn:
        lsn = self._start_lsn()
        if lsn is not None or segment is None:
            return Lsn(lsn or 0)
        offset = _wal_e_offset((self.match[3] or "_0")[1:], segment)
        return Lsn(segment.start + (offset or 0))

    def _stop(self, segment: SegmentName | None) -> Lsn:
        stop = self._stop_lsn()
        if stop is not None:
            return Lsn(stop)
        last = self._wal_e_last()
        if segment is None or last is None:
            return self._lsn(segment.start + segment.segment_bytes) if segment is not None else Lsn(0)
        # Of a segment's end the server names the segment that ends there, and 0 as the place in it.
        offset = _wal_e_offset(self.seal.text("wal_segment_offset_backup_stop"), last)
        return self._lsn(last.start + (offset or last.segment_bytes))

    def _lsn(self, value: int) -> Lsn:
        try:
            return Lsn(value)
        except ValueError as exc:
            raise CorruptObject(keys.sentinel(self.name), str(exc)) from exc

    def _wal_e_last(self) -> SegmentName | None:
        """The last segment that a backup of WAL-E needs; None when its sentinel does not say it."""
        name = self.seal.text("wal_segment_backup_stop")
        try:
            return SegmentName.parse(name, self.proven_segment_bytes() or DEFAULT_SEGMENT_BYTES) if name else None
        except ValueError as exc:
            raise CorruptObject(keys.sentinel(self.name), str(exc)) from exc

    def _engine(self) -> str:
        if self.extras is not None:
            return "pgbackup"
        return "wal-e" if self.match[3] is not None and self._start_lsn() is None else "wal-g"

    def _tablespaces(self) -> tuple[Tablespace, ...]:
        spec = self.seal.child("Spec")
        if spec is None:
            return ()
        found = []
        for name in spec.texts("tablespaces"):
            entry = spec.child(name)
            if not OID.fullmatch(name) or entry is None or not entry.text("loc"):
                raise CorruptObject(keys.sentinel(self.name), f"its tablespace {name!r} has no OID or no place")
            found.append(Tablespace(int(name), entry.text("loc").rstrip("/") or "/"))
        return tuple(found)

    def _is_named_for_its_start(self) -> bool:
        """Whether the name is that of the segment in which it began: for some segment size, if the size is not said."""
        lsn, size = self._start_lsn(), self.proven_segment_bytes()
        return lsn is None or any(self._is_named_for(lsn, each) for each in ([size] if size else _sizes()))

    def _problem(self, start: Lsn, stop: Lsn) -> str:
        if self._engine() == "wal-e":
            return self._wal_e_problem(start, stop)
        if self.match[2] is not None and not self.seal.text("DeltaFrom"):
            return "its name is a delta's, and its sentinel does not say of which backup"
        if self._start_lsn() is None:
            return "its documents do not say at which LSN it began"
        if self._stop_lsn() is None:
            return "its documents do not say at which LSN it ended"
        if not self._is_named_for_its_start():
            return f"its documents say that it began at {start}, which is not in the segment that it is named for"
        if stop < start:
            return f"its documents say that it began at {start} and ended at {stop}"
        return ""

    def _wal_e_problem(self, start: Lsn, stop: Lsn) -> str:
        last = self._wal_e_last()
        if last is None:
            return "its sentinel does not say in which segment it ended"
        if last.timeline != int(self.match[1][:8], 16) or stop <= start:
            return f"it began in segment {self.match[1]}, and its sentinel says that it ended in {last}"
        return ""


def _one_short_line(text: str) -> str:
    """A label for a table and a terminal, whatever somebody wrote into it."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * _LABEL_CHARACTERS]).split())
    return line if len(line) <= _LABEL_CHARACTERS else f"{line[: _LABEL_CHARACTERS - 3]}..."


def _sizes() -> list[int]:
    """Every wal_segment_size that there is."""
    size, sizes = MIN_SEGMENT_BYTES, []
    while size <= MAX_SEGMENT_BYTES:
        sizes.append(size)
        size *= 2
    return sizes


def _version(text: str) -> int:
    """``server_version_num`` of what ``SELECT version()`` says: 140002 for "PostgreSQL 14.2 on ...", 90624 for 9.6."""
    match = _VERSION.match(text)
    if match is None:
        return 0
    first, second, third = (int(part or 0) for part in match.groups())
    return first * 10000 + second if first >= 10 else first * 10000 + second * 100 + third


def _wal_e_offset(text: str, segment: SegmentName) -> int | None:
    """WAL-E pads the offset in the segment with zeros, and writes it in decimal; None for what is no such place."""
    offset = int(text) if _OFFSET.fullmatch(text) else segment.segment_bytes
    return offset if offset < segment.segment_bytes else None
