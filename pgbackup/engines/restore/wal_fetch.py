"""What ``restore_command`` calls: put one WAL file where Postgres wants it.

Exit codes are the contract. NotInArchive (74): the archive does not have it, and Postgres goes on to what comes next:
another timeline, or the end of recovery. Everything else must end above 125, so that Postgres stops instead of ending
recovery early; under a restore that includes a segment which was there when the restore was planned.

Only whole segments and history files are served, unless a restore's plan says otherwise: a tail that is served to a
standby would be taken for a whole segment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from pgbackup.core.lsn import SegmentName, is_segment_name
from pgbackup.core.timeline import parse_history_name
from pgbackup.engines.restore.sync import write_all
from pgbackup.engines.restore.wal import FetchPlan
from pgbackup.engines.wal.read import WalReader
from pgbackup.errors import ConfigError, CorruptObject, NotInArchive, RestoreError

_WAL_FILE = re.compile(r"^(?:[0-9A-F]{8}\.history|[0-9A-F]{24}(?:\.partial|\.[0-9A-F]{8}\.backup)?)$")


def check_arguments(name: str, destination: Path) -> None:
    """Raise ConfigError for a name that is none of a WAL file, or a destination that is taken."""
    if not _WAL_FILE.match(name):
        raise ConfigError(
            f"{name!r} is not the name of a WAL file", hint="Use restore_command = 'pgbackup wal-fetch %f %p'."
        )
    if destination.exists():
        raise ConfigError(f"{destination} exists already", hint="Nothing is overwritten: remove it, or choose another.")


def fetch(reader: WalReader, name: str, destination: Path, plan: FetchPlan | None = None) -> None:
    """Write a WAL file to ``destination``, which does not exist. ``plan`` is that of a restore.

    Raises NotInArchive when it is not there and need not be.
    """
    if not is_segment_name(name):
        timeline = parse_history_name(name)
        write_new(destination, [reader.history(timeline)] if timeline is not None else reader.other(name))
    elif plan is None:
        write_new(destination, reader.named(name))
    else:
        _fetch_planned(reader, SegmentName.parse(name, plan.segment_bytes), destination, plan)


def _fetch_planned(reader: WalReader, segment: SegmentName, destination: Path, plan: FetchPlan) -> None:
    file = plan.file_for(segment)
    if file is None:
        raise NotInArchive(f"segment {segment} is not on the path of timeline {plan.history.timeline}")
    try:
        size = write_new(destination, reader.planned(file), segment.segment_bytes)
    except NotInArchive as exc:
        if not plan.must_have(segment):
            raise
        raise RestoreError(
            f"segment {segment} was there when the restore was planned and is gone now",
            detail=f"recovery was planned to {plan.end}",
            hint="Stop whatever deletes from the repository, and restore again.",
        ) from exc
    if size < file.used_bytes:
        destination.unlink()
        raise CorruptObject(str(segment), f"{size} bytes of it are there, {file.used_bytes} were planned")


def write_new(destination: Path, blocks: Iterable[bytes], full_bytes: int | None = None) -> int:
    """Write a file under a temporary name, fill it up with zeros to ``full_bytes``, then give it its name.

    Returns the bytes written, without the zeros. Nothing is left behind when reading or writing fails; raises
    RestoreError for what the disk refuses.
    """
    try:
        return _write_new(destination, blocks, full_bytes)
    except OSError as exc:
        raise RestoreError(
            f"{destination} cannot be written",
            detail=exc.strerror or str(exc),
            hint="Mend that (free space, if the disk is full), and start the server again.",
        ) from exc


def _write_new(destination: Path, blocks: Iterable[bytes], full_bytes: int | None) -> int:
    temporary = destination.with_name(f"{destination.name}.pgbackup-{os.getpid()}")
    size = 0
    descriptor = -1
    try:
        for block in blocks:
            if descriptor < 0:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            write_all(descriptor, block)
            size += len(block)
        if descriptor < 0:
            raise CorruptObject(destination.name, "it is empty")
        if full_bytes is not None:
            os.ftruncate(descriptor, full_bytes)
        temporary.rename(destination)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return size
