"""Make everything that a restore wrote durable, quickly.

One ``syncfs`` per file system writes it all out in the kernel's own order; after it, an fsync of each file and folder
costs next to nothing, and is still made: it is what reports an error of just that file. While files are written their
blocks are pushed out early, or a restore on a machine with much memory would only begin to write when it is done.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pgbackup.errors import RestoreError
from pgbackup.storage.disk import flush_folder

PUSH_BYTES = 8 << 20
_THREADS = 4
_libc = ctypes.CDLL(None, use_errno=True)


def push_out(descriptor: int, first: int, end: int) -> None:
    """Ask the kernel to begin writing ``[first, end)`` of a file, without waiting. Helps, promises nothing."""
    call = getattr(_libc, "sync_file_range", None)
    if call is not None:
        write_only = 2  # SYNC_FILE_RANGE_WRITE
        call(ctypes.c_int(descriptor), ctypes.c_int64(first), ctypes.c_int64(end - first), ctypes.c_uint(write_only))


def write_all(descriptor: int, block: bytes | memoryview) -> None:
    """Write a block at the file's position, to its last byte."""
    done = os.write(descriptor, block)
    while done < len(block):
        done += os.write(descriptor, memoryview(block)[done:])


def write_all_at(descriptor: int, block: bytes | memoryview, offset: int) -> None:
    """Write a block at an offset of the file, to its last byte."""
    done = os.pwrite(descriptor, block, offset)
    while done < len(block):
        done += os.pwrite(descriptor, memoryview(block)[done:], offset + done)


def sync_trees(roots: Iterable[Path]) -> None:
    """Flush every file and folder below some directories to the disk. Raises RestoreError when the disk fails."""
    directories = list(roots)
    try:
        for device_root in _one_per_device(directories):
            _sync_file_system(device_root)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="sync") as pool:
            for root in directories:
                for folder, _, names in os.walk(root):
                    for _ in pool.map(_sync_file, [os.path.join(folder, name) for name in names]):  # noqa: PTH118 - hot
                        pass
                    flush_folder(Path(folder))
    except OSError as exc:
        where = exc.filename or ", ".join(map(str, directories))
        raise RestoreError(
            f"{where} cannot be written to the disk",
            detail=exc.strerror or str(exc),
            hint="Check the disk, then repeat.",
        ) from exc


def _one_per_device(directories: Iterable[Path]) -> list[Path]:
    return list({directory.stat().st_dev: directory for directory in directories}.values())


def _sync_file_system(directory: Path) -> None:
    call = getattr(_libc, "syncfs", None)
    if call is None:
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if call(ctypes.c_int(descriptor)) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(directory))
    finally:
        os.close(descriptor)


def _sync_file(path: str) -> None:
    if os.path.islink(path):  # noqa: PTH114 - once per file of a cluster
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
