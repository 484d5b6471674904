"""What the disk refuses while a restore writes, in words: which file, why, and what to do before it is repeated."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgbackup.errors import RestoreError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def disk_error(path: Path, exc: OSError) -> RestoreError:
    """The error for a file or folder that cannot be written."""
    detail = exc.strerror or str(exc)
    if exc.errno in _FULL:
        return RestoreError(
            f"{path} cannot be written",
            detail=detail,
            hint="Free space there, restore to a larger disk, or use --wal on-demand; then repeat the restore.",
        )
    return RestoreError(f"{path} cannot be written", detail=detail, hint="Mend that, and repeat the restore.")


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Turns an OSError into ours: of the file that it names, else of ``directory``."""
    try:
        yield
    except OSError as exc:
        name = exc.filename2 or exc.filename
        path = Path(name) if isinstance(name, str) else directory
        raise disk_error(path, exc) from exc
