"""A backup whose files another program puts down: into a folder inside the claimed directory, then to their places.

The program wants an empty directory, and the claimed one holds our marker. Until everything is in its place and
checked the control file has its temporary name, as in every restore; what would disturb the recovery is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pgbackup.core.backup import CONTROL_FILE
from pgbackup.engines.restore.files import is_left_out
from pgbackup.engines.restore.place import CONTROL_TEMPORARY, Claim
from pgbackup.errors import RestoreError
from pgbackup.postgres.data_directory import Owner, make_directory

_FOLDER = ".pgbackup-fetched"

FetchInto = Callable[[Path], bool]
"""Puts a backup's files into an empty directory; False when it cannot, and has written nothing."""


def place_fetched(claim: Claim, fetch: FetchInto) -> bool:
    """Fill a claimed directory by another program. False: nothing was done, unpack the objects instead."""
    directory = claim.place.directory
    folder = directory / _FOLDER
    make_directory(folder, claim.owner)
    if not fetch(folder):
        folder.rmdir()
        return False
    _check(folder)
    control = folder / CONTROL_FILE
    if not control.is_file():
        raise RestoreError(f"the backup brought no {CONTROL_FILE}", hint="Restore another backup.")
    control.rename(folder / CONTROL_TEMPORARY)
    for path in sorted(folder.iterdir()):
        if is_removed(path.name):
            _remove(path)
        else:
            path.rename(directory / path.name)
    folder.rmdir()
    if claim.owner is not None:
        _give(directory, claim.owner)
    return True


def is_removed(name: str) -> bool:
    """Whether a file or directory of a backup does not stay: it would disturb the recovery."""
    return is_left_out(name) or is_left_out(f"{name}/")


def _check(folder: Path) -> None:
    """Nothing but files and directories: a link would lead out of the directory."""
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(where, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise RestoreError(
                    f"{path.relative_to(folder)} of the backup is neither a file nor a directory",
                    hint="Restore with PGBACKUP_ENGINE=native, which maps tablespaces and leaves other links out.",
                )


def _give(directory: Path, owner: Owner) -> None:
    for where, folders, files in os.walk(directory):
        for name in (*folders, *files):
            os.chown(Path(where, name), owner.uid, owner.gid, follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
