"""Counts uploads of WAL from any thread; ``totals`` is one look at the counts."""

from __future__ import annotations

import threading
from dataclasses import replace

from pgbackup.core.upload_totals import UploadTotals, bucket_of, error_kind


class UploadStats:
    """Belongs to the process, so that counters never go back when a streaming session ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = UploadTotals()

    def stored(self, *, seconds: float, stored_bytes: int, segment: bool) -> None:
        """An object is durable; ``segment`` when it is a whole segment."""
        with self._lock:
            before, index = self._totals, bucket_of(seconds)
            self._totals = replace(
                before,
                objects=before.objects + 1,
                segments=before.segments + segment,
                stored_bytes=before.stored_bytes + stored_bytes,
                seconds=before.seconds + seconds,
                buckets=tuple(n + (at == index) for at, n in enumerate(before.buckets)),
            )

    def failed(self, error: BaseException) -> None:
        kind = error_kind(error)
        with self._lock:
            errors = {**self._totals.errors, kind: self._totals.errors[kind] + 1}
            self._totals = replace(self._totals, errors=errors)

    def totals(self) -> UploadTotals:
        return self._totals
