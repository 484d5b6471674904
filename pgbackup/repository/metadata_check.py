"""Whether metadata.json of a backup says what its sentinel says: of ours everything, for it vouches for itself by a
checksum, of WAL-G's what tells one backup from another."""

from __future__ import annotations

from pgbackup.repository.documents import EXTRAS_KEY
from pgbackup.repository.json_object import JsonObject

_TWINS = {
    "StartTime": "start_time", "FinishTime": "finish_time", "DateFmt": "date_fmt", "Hostname": "hostname",
    "DataDir": "data_dir", "PgVersion": "pg_version", "LSN": "start_lsn", "FinishLSN": "finish_lsn",
    "SystemIdentifier": "system_identifier", "UncompressedSize": "uncompressed_size",
    "CompressedSize": "compressed_size",
}  # fmt: skip
"""The fields of the sentinel that metadata.json repeats."""

_TIMES = frozenset({"StartTime", "FinishTime", "start_time", "finish_time"})
_TELLING = ("LSN", "FinishLSN", "SystemIdentifier")


def foreign_metadata_problem(sentinel: JsonObject, metadata: JsonObject) -> str:
    """Why metadata.json of WAL-G belongs to another backup; empty when nothing says so."""
    for name in _TELLING:
        there, here = sentinel.integer(name), metadata.integer(_TWINS[name])
        if None not in (there, here) and there != here:
            return f"its {_TWINS[name]} is {here}, that of the sentinel is {there}: it is another backup's"
    return ""


def metadata_problem(sentinel: JsonObject, metadata: JsonObject) -> str:
    """In what metadata.json of a backup of ours says other than the sentinel; empty when they agree.

    Permanence is left out: `wal-g backup-mark` changes it in metadata.json alone. It writes the rest anew, with times
    that have no zeros at their ends, so moments are compared, not texts.
    """
    for name, twin in _TWINS.items():
        if _read(sentinel, name) != _read(metadata, twin):
            return f"its {twin} is {metadata.value(twin)!r}, that of the sentinel is {sentinel.value(name)!r}"
    ours, theirs = sentinel.child("UserData"), metadata.child("user_data")
    extras = ours.value(EXTRAS_KEY) if ours is not None else None
    if not isinstance(extras, dict) or theirs is None:
        return "its user_data is not that of the sentinel"
    if {name: value for name, value in extras.items() if name != "sha256"} != theirs.value(EXTRAS_KEY):
        return "its user_data is not that of the sentinel"
    return "" if metadata.flag("is_permanent") is not None else "it does not say whether the backup is permanent"


def _read(document: JsonObject, name: str) -> object:
    return document.moment(name) if name in _TIMES else document.value(name)
