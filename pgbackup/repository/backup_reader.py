"""One backup from its sentinel and metadata.json, whoever wrote them.

The name says whose it is: ``base_<segment>`` is a full backup, ``_D_<parent's segment>`` behind it makes it a delta of
WAL-G, eight digits at the end are WAL-E's offset. metadata.json is the truth where it exists (permanence is kept only
there), but our own sentinel holds a checksum and comes first; WAL-E has none, and its sentinel knows no times: they
come from the sentinel's age. Where a backup begins and ends is read by backup_place.

A backup whose documents cannot be read is still listed, with its problem, and as permanent as far as they say so.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pgbackup.core.backup import OID, Backup, Tablespace
from pgbackup.core.lsn import DEFAULT_SEGMENT_BYTES, Lsn, check_segment_bytes
from pgbackup.errors import CorruptObject
from pgbackup.repository import keys
from pgbackup.repository.backup_place import Place, documented_place, is_while_offline, wal_e_place
from pgbackup.repository.codec import is_readable
from pgbackup.repository.codec_lzop import HINT
from pgbackup.repository.documents import EXTRAS_KEY, SEALED_FORMAT, is_as_sealed
from pgbackup.repository.json_object import JsonObject

_NAME = re.compile(r"base_([0-9A-F]{24})(?:_D_([0-9A-F]{24}))?(_[0-9A-F]{8})?")
_VERSION = re.compile(r"PostgreSQL (\d{1,2})(?:\.(\d{1,3}))?(?:\.(\d{1,3}))?")
_EPOCH = datetime.fromtimestamp(0, UTC)
_WAL_E_EXTENSION = "lzo"
_OLDEST_VERSION = 130000
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
    name: str,
    modified: datetime,
    sentinel: bytes,
    metadata: bytes | None,
    version_text: str = "",
    *,
    wal_e_segment_bytes: int = DEFAULT_SEGMENT_BYTES,
) -> ReadBackup:
    """The backup that the documents describe; ``modified``: the sentinel's age. Never raises for what they hold.

    ``version_text``: WAL-E's extended_version.txt, what the server said of its version. WAL-E does not note the size of
    segments, so somebody else has to say it.
    """
    try:
        return _read(name, modified, sentinel, metadata, version_text, wal_e_segment_bytes)
    except CorruptObject as exc:
        return ReadBackup(unreadable_backup(name, modified, str(exc), sentinel, metadata), None)


def unreadable_backup(
    name: str, modified: datetime, problem: str, sentinel: bytes | None, metadata: bytes | None
) -> Backup:
    """A backup whose documents cannot be read: listed, with the reason, and never restored."""
    match = _NAME.fullmatch(name)
    timeline, zero = int(match[1][:8], 16) if match else 0, Lsn(0)
    return Backup(
        name, timeline, zero, zero, _EPOCH, _EPOCH, modified, 0, 0, 0, 0, "unknown",
        permanent=_may_be_permanent(name, sentinel, metadata), problem=problem,
    )  # fmt: skip


def _may_be_permanent(name: str, sentinel: bytes | None, metadata: bytes | None) -> bool:
    """Whether the documents say that a backup is to stay, as far as they can be read; damaged metadata.json says so."""
    try:
        known = JsonObject.parse(keys.metadata(name), metadata).flag("is_permanent") if metadata is not None else None
    except CorruptObject:
        return True
    if known is not None or sentinel is None:
        return known or False
    try:
        return JsonObject.parse(keys.sentinel(name), sentinel).flag("IsPermanent") or False
    except CorruptObject:
        return False


def extras_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Our part of the user data of a sentinel or metadata.json; empty for backups of other tools."""
    user_data = document.get("UserData", document.get("user_data"))
    extras = user_data.get(EXTRAS_KEY) if isinstance(user_data, dict) else None
    return extras if isinstance(extras, dict) else {}


def _read(
    name: str, modified: datetime, sentinel: bytes, metadata: bytes | None, version_text: str, wal_e_segment_bytes: int
) -> ReadBackup:
    match = _NAME.fullmatch(name)
    if match is None:
        raise CorruptObject(keys.sentinel(name), "its name is not a backup's")
    seal = JsonObject.parse(keys.sentinel(name), sentinel)
    details, is_damaged = _metadata(name, metadata)
    extras = _extras(name, seal) or _extras(name, details)
    is_vouched = _check_seal(name, sentinel, seal, extras)
    documents = _Documents(name, match, seal, details, extras, version_text)
    place = documents.place(wal_e_segment_bytes, is_vouched=is_vouched)
    backup = documents.backup(modified, place, permanent=is_damaged or documents.permanent())
    return ReadBackup(backup, place.segment_bytes)


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


def _check_seal(name: str, sentinel: bytes, seal: JsonObject, extras: JsonObject | None) -> bool:
    """Whether a sentinel has proven to be as it was written. Raises CorruptObject for one of ours that is not, though
    it may still be read."""
    own = _extras(name, seal)
    checksum = own.text("sha256") if own is not None else ""
    is_ours = extras is not None and (extras.integer("format") or 0) >= SEALED_FORMAT
    if (is_ours or checksum) and not is_as_sealed(sentinel, checksum):
        raise CorruptObject(keys.sentinel(name), "it is not as it was written: its checksum is another")
    return bool(checksum)


@dataclass(frozen=True, slots=True)
class _Documents:
    """What there is about one backup; each method reads one fact from where it is best known."""

    name: str
    match: re.Match[str]
    seal: JsonObject
    details: JsonObject
    extras: JsonObject | None
    version_text: str

    def backup(self, modified: datetime, place: Place, *, permanent: bool) -> Backup:
        seal, details = self.seal, self.details
        finished = self._moment("FinishTime", "finish_time") or modified
        extras = self.extras or JsonObject(self.name, {})
        corrupt = extras.value("corrupt_files")
        problem, needs = self._unreadable_here() or (self._lacks_parent() or place.problem, "")
        return Backup(
            name=self.name,
            timeline=int(self.match[1][:8], 16),
            start_lsn=place.start,
            stop_lsn=place.stop,
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
        if is_while_offline(self.match[1], self._offset(), self.seal):
            return (
                "it was taken with --while-offline, and WAL-E names such backups wrongly, so its WAL is not known",
                _BY_HAND,
            )
        return None

    def _label(self) -> str:
        """Part of our user data; that of WAL-G's backups may be anything, and holds it where the engine took them."""
        if self.extras is not None:
            return self.extras.text("label")
        user_data = self.seal.value("UserData") or self.details.value("user_data")
        label = user_data.get("label") if isinstance(user_data, dict) else None
        return label if isinstance(label, str) else ""

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

    def place(self, wal_e_segment_bytes: int, *, is_vouched: bool) -> Place:
        """Where it begins and ends."""
        if self._engine() == "wal-e":
            return wal_e_place(self.match[1], self._offset(), self.seal, wal_e_segment_bytes)
        claimed = self.extras.integer("segment_bytes") if self.extras is not None else None
        try:
            claimed = check_segment_bytes(claimed) if claimed is not None else None
        except ValueError as exc:
            raise CorruptObject(keys.sentinel(self.name), str(exc)) from exc
        return documented_place(self.match[1], self.seal, self.details, claimed_bytes=claimed, is_vouched=is_vouched)

    def _offset(self) -> str:
        """WAL-E's in the name."""
        return (self.match[3] or "")[1:]

    def _engine(self) -> str:
        if self.extras is not None:
            return "pgbackup"
        has_start = self.seal.value("LSN") is not None or self.details.value("start_lsn") is not None
        return "wal-g" if has_start or self.match[3] is None else "wal-e"

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

    def _lacks_parent(self) -> str:
        if self.match[2] is not None and not self.seal.text("DeltaFrom"):
            return "its name is a delta's, and its sentinel does not say of which backup"
        return ""


def _version(text: str) -> int:
    """``server_version_num`` of what ``SELECT version()`` says: 140002 for "PostgreSQL 14.2 on ...", 90624 for 9.6."""
    match = _VERSION.match(text)
    if match is None:
        return 0
    first, second, third = (int(part or 0) for part in match.groups())
    return first * 10000 + second if first >= 10 else first * 10000 + second * 100 + third
