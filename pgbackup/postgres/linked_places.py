"""What a server leaves out of every base backup because it is a link: the server follows those of tablespaces only.

Somebody moved a database's directory, or pg_xact, to another disk. Source: sendDir in src/backend/backup/basebackup.c
("skipping special file"); pg_wal may be a link, its content comes by streaming.
"""

from __future__ import annotations

import re
from pathlib import Path

_NEEDED = re.compile(
    r"(?:base/\d+|pg_tblspc/\d+|pg_xact|pg_multixact|pg_twophase|pg_commit_ts)(?:/|$)|global(?:$|/\d|/pg_)|base$|PG_VERSION$"
)
_LEVELS = ("*", "base/*", "base/*/*", "global/*", "pg_tblspc/*/*/*", "pg_xact/*", "pg_multixact/*", "pg_multixact/*/*")
MOVE_BACK = "Stop the server and move it back into the data directory; for another disk make a tablespace."


def is_needed(path: str) -> bool:
    """Whether a cluster cannot do without a file or folder, given below the data directory."""
    return _NEEDED.match(path) is not None


def linked_places(directory: Path) -> list[str]:
    """What of a data directory is a link, and needed; as far as we may look. Raises OSError."""
    found = [path for level in _LEVELS for path in directory.glob(level) if path.is_symlink()]
    names = {path.relative_to(directory).as_posix() for path in found}
    return sorted(name for name in names if is_needed(name))
