"""A base backup in a process of its own, measured: ``python -m tests.measured_backup CONNINFO [options]``.

Prints the peak of its resident memory in MiB, the number of files, the seconds from the start to the seal, the raw and
the stored bytes. The store is PGBACKUP_REPOSITORY's; WAL is shipped as `pgbackup backup` does without `pgbackup run`.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from pathlib import Path
from typing import Any, cast

from pgbackup.engines.backup.base_backup import BackupRequest, take_backup
from pgbackup.engines.base import SilentProgress
from pgbackup.engines.wal.coverage import choose_coverage
from pgbackup.repository import checksum_table
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.open import open_store


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("conninfo")
    parser.add_argument("--compression", default="zstd:1")
    parser.add_argument("--spill-files", type=int)
    parser.add_argument("--put-seconds", type=float, default=0.0, help="how long every part takes at least")
    given = parser.parse_args()
    if given.spill_files is not None:
        cast("dict[str, int]", checksum_table.ChecksumTable.__init__.__kwdefaults__)["spill_files"] = given.spill_files
    store: Any = open_store(os.environ["PGBACKUP_REPOSITORY"])
    if given.put_seconds:
        slow_down(store, given.put_seconds)
    codec = Codec(Compression.parse(given.compression))
    wal = choose_coverage(given.conninfo, "pgbackup", "pgbackup", store, codec, writer="measured")
    request = BackupRequest(store, codec, given.conninfo, "pgbackup", wal, "here")
    begin = time.monotonic()
    result = take_backup(request, SilentProgress(), threading.Event())
    seconds = time.monotonic() - begin
    wal.close()
    peak = peak_rss_mib()
    print(f"{peak:.1f} {result.files} {seconds:.3f} {result.raw_bytes} {result.stored_bytes}", flush=True)
    os._exit(0)


def peak_rss_mib() -> float:
    """The peak of this program. ru_maxrss would not do: after exec it still has the peak of the parent that forked."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def slow_down(store: Any, seconds: float) -> None:
    start_upload = store.start_upload

    def start(key: str) -> Any:
        upload = start_upload(key)
        put_part = upload.put_part

        def put(number: int, data: bytes) -> None:
            time.sleep(seconds)
            put_part(number, data)

        upload.put_part = put
        return upload

    store.start_upload = start


if __name__ == "__main__":
    main()
