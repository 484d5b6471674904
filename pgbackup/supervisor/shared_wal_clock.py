"""A WalClock for several threads: what looks at the server brings samples, and so does what follows the stream."""

from __future__ import annotations

import threading
from datetime import datetime

from pgbackup.core.lsn import Lsn
from pgbackup.core.wal_clock import WalClock


class SharedWalClock(WalClock):
    """Thread-safe; see WalClock."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def note(self, moment: datetime, lsn: Lsn) -> None:
        with self._lock:
            super().note(moment, lsn)

    def heard(self, moment: datetime, lsn: Lsn) -> None:
        with self._lock:
            super().heard(moment, lsn)

    def reached(self, durable: Lsn) -> datetime | None:
        with self._lock:
            return super().reached(durable)

    def passed(self, durable: Lsn) -> datetime | None:
        with self._lock:
            return super().passed(durable)
