"""The JSON documents of a backup as Go's encoding/json decodes them into WAL-G's types, and what WAL-G does with them.

A wrong type fails a whole document, unknown keys do not count, null leaves the zero value. Rules: repository-format.md,
sections 3 and 4.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

FULL = re.compile(r"base_([0-9A-F]{24})")
RECOGNISED = re.compile(r"base_[0-9A-F]{24}(_D_[0-9A-F]{24})?(_[0-9A-F]{8})?")
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
UTILITY = {"global/pg_control", "/global/pg_control", "backup_label", "tablespace_map"}

_UINT64, _INT64, _INT, _TEXT, _TIME, _BOOL = "uint64", "int64", "int", "string", "time", "bool"
SENTINEL = {
    "LSN": _UINT64, "FinishLSN": _UINT64, "PgVersion": _INT, "SystemIdentifier": _UINT64, "UncompressedSize": _INT64,
    "CompressedSize": _INT64, "DataCatalogSize": _INT64, "DeltaLSN": _UINT64, "DeltaFrom": _TEXT,
    "DeltaFullName": _TEXT, "DeltaCount": _INT, "FilesMetadataDisabled": _BOOL, "Version": _INT, "StartTime": _TIME,
    "FinishTime": _TIME, "DateFmt": _TEXT, "Hostname": _TEXT, "DataDir": _TEXT, "IsPermanent": _BOOL,
}  # fmt: skip
METADATA = {
    "start_time": _TIME, "finish_time": _TIME, "date_fmt": _TEXT, "hostname": _TEXT, "data_dir": _TEXT,
    "pg_version": _INT, "start_lsn": _UINT64, "finish_lsn": _UINT64, "is_permanent": _BOOL,
    "system_identifier": _UINT64, "uncompressed_size": _INT64, "compressed_size": _INT64,
}  # fmt: skip
_DELTA = ("DeltaLSN", "DeltaFullName", "DeltaCount")


def decode(data: bytes, types: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The document, and why Go would not decode it."""
    try:
        document = json.loads(data)
    except ValueError as exc:
        return {}, [f"is not JSON (compressed or encrypted?): {exc}"]
    if not isinstance(document, dict):
        return {}, ["is not an object"]
    return document, [
        f"{key} is no {types[key]}" for key, value in document.items() if not _fits(value, types.get(key))
    ]


def _fits(value: Any, kind: str | None) -> bool:
    if kind is None or value is None:
        return True
    if kind in (_UINT64, _INT64, _INT):
        low, high = (0, 1 << 64) if kind == _UINT64 else (-(1 << 63), 1 << 63)
        return isinstance(value, int) and not isinstance(value, bool) and low <= value < high
    if kind == _BOOL:
        return isinstance(value, bool)
    return isinstance(value, str) and (kind == _TEXT or RFC_3339.fullmatch(value) is not None)


def name_problems(name: str) -> Iterator[str]:
    """Section 3.1: any suffix makes it WAL-E's, whose control file WAL-G does not extract."""
    if RECOGNISED.search(name) is None:
        yield "its name is not recognised, which breaks every wal-g delete"
    elif FULL.fullmatch(name) is None and "_D_" not in name:
        yield "its name is classed as WAL-E's: pg_control and backup_label are not extracted"


def sentinel_problems(data: bytes) -> tuple[dict[str, Any], list[str]]:
    document, problems = decode(data, SENTINEL)
    if "LSN" not in document or "FinishLSN" not in document:
        problems.append("LSN and FinishLSN are needed: a delta push and --reverse-unpack crash without them")
    if document.get("DeltaFrom") and any(document.get(name) is None for name in _DELTA):
        problems.append("DeltaFrom without DeltaLSN, DeltaFullName and DeltaCount is a panic")
    spec = document.get("Spec")
    if spec is not None:
        problems += _spec_problems(spec)
    return document, problems


def _spec_problems(spec: Any) -> Iterator[str]:
    """Section 4.3: a bad Spec makes the sentinel unparsable."""
    if not isinstance(spec, dict) or not isinstance(spec.get("base_prefix"), str):
        yield "Spec has no base_prefix"
        return
    if spec["base_prefix"] != "/" and spec["base_prefix"].endswith("/"):
        yield "base_prefix ends with a slash"
    for name in spec.get("tablespaces") or []:
        entry = spec.get(name) if isinstance(name, str) else None
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("loc", "link")):
            yield f"tablespace {name!r} of Spec has no loc and link of its own"
        elif entry["link"] != f"pg_tblspc/{name}" or not entry["loc"].startswith("/"):
            yield f"tablespace {name!r} of Spec leads to {entry}"


def metadata_problems(data: bytes | None, sentinel: dict[str, Any]) -> Iterator[str]:
    """Section 4.2 and 5: one missing metadata.json breaks backup-list --detail and wal-show for the whole prefix."""
    if data is None:
        yield "metadata.json is missing"
        return
    document, problems = decode(data, METADATA)
    yield from (f"metadata.json: {problem}" for problem in problems)
    for ours, theirs in (("LSN", "start_lsn"), ("FinishLSN", "finish_lsn"), ("SystemIdentifier", "system_identifier")):
        if document.get(theirs) != sentinel.get(ours):
            yield f"metadata.json: {theirs} differs from the sentinel's {ours}"
    for needed in ("start_time", "finish_time", "start_lsn", "finish_lsn"):
        if document.get(needed) is None:
            yield f"metadata.json: {needed} is missing"


def allow_list(data: bytes | None, sentinel: dict[str, Any]) -> tuple[set[str] | None, list[str]]:
    """Section 4.4: the names that are extracted (None: everything), and what is wrong with the list."""
    if sentinel.get("FilesMetadataDisabled"):
        return None, ["files_metadata.json is there although the sentinel says not"] if data is not None else []
    if data is None:
        return None, ["files_metadata.json is missing, which WAL-G before 3.0.8 refuses"]
    document, problems = decode(data, {})
    files = document.get("Files") or {}
    for name, entry in files.items():
        if not isinstance(entry, dict) or not _fits(entry.get("MTime"), _TIME):
            problems.append(f"files_metadata.json: {name} has no MTime")
    return set(files) | UTILITY if files else None, problems
