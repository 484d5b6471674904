"""Chains of backups: a delta holds what changed since its parent, so a restore needs the full backup and every link.

Pure; ``find`` looks a backup up by its name. A chain is only believed when its links fit: a parent that was replaced by
another backup of the same name would give a data directory of two moments, and no checksum would tell.
"""

from __future__ import annotations

from collections.abc import Callable

from pgbackup.core.backup import Backup

MAX_LINKS = 1000


class BrokenChain(ValueError):
    """Why a delta cannot be restored, for people."""


def chain_of(backup: Backup, find: Callable[[str], Backup | None]) -> tuple[Backup, ...]:
    """The full backup, then each delta up to ``backup`` itself. Raises BrokenChain."""
    chain = [backup]
    while (child := chain[-1]).delta_of is not None:
        parent = find(child.delta_of)
        if parent is None:
            raise BrokenChain(f"it is a delta of {child.delta_of}, which is not there")
        if parent in chain or len(chain) == MAX_LINKS:
            raise BrokenChain(f"it is a delta of {parent.name}, and their chain has no begin")
        if why := parent.problem or ("pages of it are damaged" if parent.corrupt_files else ""):
            raise BrokenChain(f"it is a delta of {parent.name}, which cannot be restored: {why}")
        _check_link(parent, child)
        chain.append(parent)
    return tuple(reversed(chain))


def why_broken(backup: Backup, find: Callable[[str], Backup | None]) -> str:
    """Empty when the chain of ``backup`` is whole; every full backup's is."""
    try:
        chain_of(backup, find)
    except BrokenChain as exc:
        return str(exc)
    return ""


def _check_link(parent: Backup, child: Backup) -> None:
    """What the documents of both say must fit. 0 and None: they do not say it."""
    if child.delta_lsn is not None and child.delta_lsn != parent.start_lsn:
        raise BrokenChain(
            f"it is a delta of a {parent.name} that began at {child.delta_lsn}; the one that is there began at "
            f"{parent.start_lsn}"
        )
    if 0 not in (parent.system_identifier, child.system_identifier) and (
        parent.system_identifier != child.system_identifier
    ):
        raise BrokenChain(f"it is a delta of {parent.name}, which is of another cluster")
    if 0 not in (parent.pg_major, child.pg_major) and parent.pg_major != child.pg_major:
        raise BrokenChain(f"it is a delta of {parent.name}, which is of PostgreSQL {parent.pg_major}")
    if parent.start_lsn > child.start_lsn:
        raise BrokenChain(f"it is a delta of {parent.name}, which is newer")
