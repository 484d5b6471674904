"""The newest status snapshot: published by the health check, read by whoever shows it."""

from __future__ import annotations

import threading

from pgbackup.core.status import StatusSnapshot


class LatestStatus:
    """Snapshots are frozen, so a reader keeps what it has got."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot: StatusSnapshot | None = None

    def publish(self, snapshot: StatusSnapshot) -> None:
        with self._lock:
            self._snapshot = snapshot

    def get(self) -> StatusSnapshot | None:
        """None before the first."""
        with self._lock:
            return self._snapshot
