"""Whether metadata.json of a backup of ours says what its sentinel says, which vouches for itself by a checksum."""

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


def metadata_problem(sentinel: JsonObject, metadata: JsonObject) -> str:
    """In what metadata.json of a backup of ours says other than the sentinel; empty when they agree.

    Permanence is left out: `wal-g backup-mark` changes it in metadata.json alone.
    """
    for name, twin in _TWINS.items():
        if sentinel.value(name) != metadata.value(twin):
            return f"its {twin} is {metadata.value(twin)!r}, that of the sentinel is {sentinel.value(name)!r}"
    ours, theirs = sentinel.child("UserData"), metadata.child("user_data")
    extras = ours.value(EXTRAS_KEY) if ours is not None else None
    if not isinstance(extras, dict) or theirs is None:
        return "its user_data is not that of the sentinel"
    if {name: value for name, value in extras.items() if name != "sha256"} != theirs.value(EXTRAS_KEY):
        return "its user_data is not that of the sentinel"
    return "" if metadata.flag("is_permanent") is not None else "it does not say whether the backup is permanent"
