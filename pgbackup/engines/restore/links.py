"""Symbolic links that a WAL-E backup holds: made where they are harmless, told where they are not.

WAL-E stores every link of the data directory but those of tablespaces, usually a pg_wal or a certificate that lay
elsewhere. A link that stays inside of the data directory is made, when all files are there, so that nothing was ever
written through one. One that leads outside is not: the place may be another server's, or not there at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pgbackup.engines.restore.files import is_left_out
from pgbackup.errors import RestoreError
from pgbackup.postgres.data_directory import Owner

_SHOWN = 5


def make_links(directory: Path, owner: Owner | None, links: Iterable[tuple[str, str]]) -> list[str]:
    """Make the links, (name, target) each; returns what people must know. Raises RestoreError when the disk fails."""
    left_out = []
    made: list[tuple[Path, str]] = []
    for name, target in sorted(set(links)):
        path = directory / name
        if is_left_out(name) or _is_tablespace(name) or os.path.lexists(path):
            continue
        if not _is_inside(name, target) or not _has_real_parents(directory, name):
            left_out.append(f"{name} -> {target}")
            continue
        try:
            path.symlink_to(target)
            if owner is not None:
                os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
        except OSError as exc:
            raise RestoreError(f"{path} cannot be made", detail=exc.strerror or str(exc)) from exc
        made.append((path, f"{name} -> {target}"))
    left_out += _unmake_bad(directory, made)
    if not left_out:
        return []
    more = f" and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
    return [
        "symbolic links that lead out of the data directory, or nowhere, were not made; supply what they stood for: "
        + ", ".join(left_out[:_SHOWN])
        + more
    ]


def _is_tablespace(name: str) -> bool:
    return name.startswith("pg_tblspc/")


def _is_inside(name: str, target: str) -> bool:
    """Whether the target of a link stays below the data directory, as its text says."""
    if not target or target.startswith("/") or "\0" in target:
        return False
    depth = len(PurePosixPath(name).parts) - 1
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return False
    return True


def _has_real_parents(directory: Path, name: str) -> bool:
    """Whether the folder of the link is a folder, and none on the way to it is a link."""
    path = directory
    for part in PurePosixPath(name).parts[:-1]:
        path = path / part
        if path.is_symlink() or not path.is_dir():
            return False
    return True


def _unmake_bad(directory: Path, made: Iterable[tuple[Path, str]]) -> list[str]:
    """Remove the links that lead outside by way of other ones, or nowhere; returns their texts."""
    bad = []
    root = os.path.realpath(directory)
    for path, text in made:
        real = os.path.realpath(path)
        if not real.startswith(f"{root}/") or not os.path.exists(real):  # noqa: PTH110 - a text, not a Path
            path.unlink()
            bad.append(text)
    return bad
