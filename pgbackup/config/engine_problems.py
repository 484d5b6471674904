"""Settings that the chosen engine cannot honour: they stop us, because whoever gave them relies on them."""

from __future__ import annotations

from pgbackup.config.problems import Problem

_OF_TOOLS = {
    "wal_flush_interval": "ships whole WAL segments only",
    "page_checksums": "cannot refuse a backup for a damaged page",
}
_NOT_WITH = {
    "wal-e": {
        **_OF_TOOLS,
        "compression": "always compresses with lzop",
        "part_size": "has a part size of its own",
        "upload_rate": "has no limit for uploads",
    },
    "wal-g": _OF_TOOLS,
}


def engine_problems(engine: str, given: frozenset[str], *, encrypted: bool) -> list[Problem]:
    """``given``: the settings that were given by our own names; ``encrypted``: a key for libsodium is set."""
    if engine == "native":
        return [Problem(name, "is for the engines wal-e and wal-g") for name in ("tool", "pgdata") if name in given]
    found = [
        Problem(name, f"cannot be honoured: {engine} {why}; leave it out, or use PGBACKUP_ENGINE=native")
        for name, why in _NOT_WITH.get(engine, {}).items()
        if name in given
    ]
    if encrypted and engine == "wal-e":
        text = "cannot be used by wal-e, which knows GnuPG only: set WALE_GPG_KEY_ID, or use another PGBACKUP_ENGINE"
        found.append(Problem("encryption_key", text))
    return found
