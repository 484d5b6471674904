"""The file ``tablespace_map`` of a base backup: from it a starting server makes the links in pg_tblspc.

A line per tablespace: OID, a space, the directory; a newline, a carriage return or a backslash in the directory has a
backslash before it (Postgres: do_pg_backup_start in src/backend/access/transam/xlog.c, read_tablespace_map).
"""

from __future__ import annotations

from collections.abc import Mapping

TABLESPACE_MAP = "tablespace_map"


def format_tablespace_map(locations: Mapping[int, str]) -> bytes:
    """The file's content for OID -> directory."""
    rows = []
    for oid, location in sorted(locations.items()):
        escaped = "".join("\\" + c if c in "\n\r\\" else c for c in location)
        rows.append(f"{oid} {escaped}\n")
    return "".join(rows).encode("utf-8", "surrogateescape")


def parse_tablespace_map(data: bytes) -> dict[int, str]:
    """OID -> directory. Raises ValueError for a line that is none."""
    found: dict[int, str] = {}
    line: list[str] = []
    escaped = False
    for character in data.decode("utf-8", "surrogateescape"):
        if not escaped and character == "\\":
            escaped = True
        elif not escaped and character in "\n\r":
            _add("".join(line), found)
            line.clear()
        else:
            line.append(character)
            escaped = False
    _add("".join(line), found)
    return found


def _add(line: str, found: dict[int, str]) -> None:
    if not line:
        return
    oid, separator, location = line.partition(" ")
    if not oid.isdigit() or not separator or not location:
        raise ValueError(f"not a line of tablespace_map: {line!r}")
    found[int(oid)] = location
