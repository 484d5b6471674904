"""Tablespaces that are younger than the base backup: recovery makes them where WAL says, and no map changes that.

Postgres needs the directory to be there, or recovery ends in an error. If it is another server's (the original's, on
its own machine), recovery writes into that server's files; 14 even removes them first. So what is not there is made,
and what is not empty is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pgbackup.core.backup import Tablespace
from pgbackup.engines.restore.place import Claim, RestorePlace, content_of, make_place
from pgbackup.errors import RestoreError

_SHOWN = 3


def check_later(place: RestorePlace, created: Iterable[Tablespace]) -> None:
    """Raise RestoreError where recovery must not make these. Writes nothing."""
    for tablespace in created:
        location = Path(tablespace.location)
        mapped = place.tablespaces.get(tablespace.oid)
        if mapped == location:
            continue
        what = f"the WAL of this recovery creates tablespace {tablespace.oid} in {location}"
        if mapped is not None:
            raise RestoreError(
                f"{what}, so it cannot go to {mapped}",
                detail="the server made it while the base backup began",
                hint=f"Choose a newer --backup, or let it go to {location}.",
            )
        content = _content(location)
        if content:
            more = ", ..." if len(content) > _SHOWN else ""
            raise RestoreError(
                f"{what}, and that is not empty",
                detail=f"it holds {', '.join(content[:_SHOWN])}{more}; the restored server would write into it, and "
                "may remove what is there, whoever needs it",
                hint="Restore on a machine where that place is free, or choose a newer --backup: a tablespace that is "
                "in the backup can be mapped.",
            )


def make_later(claim: Claim, created: Iterable[Tablespace]) -> list[str]:
    """Make the directories that are not there; returns what people must know. Raises RestoreError as check_later."""
    found = list(dict.fromkeys(created))
    check_later(claim.place, found)
    notes = []
    for tablespace in found:
        location = Path(tablespace.location)
        if tablespace.oid in claim.place.tablespaces:
            continue
        what = f"recovery creates tablespace {tablespace.oid} in {location}, as the original did after the backup"
        if location.is_dir():
            notes.append(f"{what}: it is empty, and must belong to the user of the server")
            continue
        try:
            make_place(location, claim.owner)
        except RestoreError as exc:
            notes.append(
                f"{what}: make that directory, empty and owned by the user of the server, before you start it ({exc})"
            )
        else:
            notes.append(f"{what}: the directory was made")
    return notes


def _content(location: Path) -> list[str]:
    """What lies in a directory; something for one that cannot be looked into."""
    try:
        return content_of(location)
    except FileNotFoundError:
        return []
    except OSError as exc:
        return [f"what cannot be seen ({exc.strerror})"]
