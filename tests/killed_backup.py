"""A base backup in a process of its own that kills itself with SIGKILL at a given point.

``python -m tests.killed_backup CONNINFO POINT [after]``. A point is ``operation:text:count``: the count-th call of that
operation of the store on a key that holds the text; ``after``: the call has its effect first. The store is
PGBACKUP_REPOSITORY's.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from pgbackup.engines.backup.base_backup import BackupRequest, take_backup
from pgbackup.engines.base import SilentProgress
from pgbackup.engines.wal.coverage import choose_coverage
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.open import open_store
from tests.base_backups import HOST, ZSTD


class DeadlyStore:
    """Passes everything on, and ends the process at the point."""

    def __init__(self, store: ObjectStore, operation: str, text: str, count: int, *, after: bool) -> None:
        self._store = store
        self._operation = operation
        self._text = text
        self._left = count
        self._after = after
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            key = str(arguments[0]) if arguments else ""
            deadly = self.is_deadly(name, key)
            if deadly and not self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = found(*arguments, **named)
            if deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return _DeadlyUpload(result, self, key) if name == "start_upload" else result

        return call

    def is_deadly(self, operation: str, key: str) -> bool:
        with self._lock:
            if operation != self._operation or self._text not in key:
                return False
            self._left -= 1
            return self._left == 0


class _DeadlyUpload:
    def __init__(self, upload: Any, store: DeadlyStore, key: str) -> None:
        self._upload = upload
        self._deadly = store
        self._key = key

    @property
    def upload_id(self) -> str:
        return str(self._upload.upload_id)

    def put_part(self, number: int, data: bytes) -> None:
        self._upload.put_part(number, data)
        if self._deadly.is_deadly("put_part", self._key):
            os.kill(os.getpid(), signal.SIGKILL)

    def complete(self) -> bool:
        if self._deadly.is_deadly("complete", self._key):
            os.kill(os.getpid(), signal.SIGKILL)
        return bool(self._upload.complete())

    def abort(self) -> None:
        self._upload.abort()


def main(conninfo: str, point: str, when: str = "before") -> None:
    operation, text, count = point.split(":")
    real = open_store(os.environ["PGBACKUP_REPOSITORY"])
    store: Any = DeadlyStore(real, operation, text, int(count), after=when == "after")
    wal = choose_coverage(conninfo, "pgbackup", "pgbackup", real, ZSTD, writer="killed")
    request = BackupRequest(
        store, ZSTD, conninfo, "pgbackup", wal, HOST, part_bytes=48 << 20, label="to be killed", max_rate=200 << 20
    )
    take_backup(request, SilentProgress(), threading.Event())


if __name__ == "__main__":
    main(*sys.argv[1:])
