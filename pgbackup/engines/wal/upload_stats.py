"""Counts uploads of WAL from any thread; ``totals`` is one look at the counts."""

from __future__ import annotations

import threading
from dataclasses import replace

from pgbackup.core.upload_totals import UploadTotals, bucket_of, error_kind

_MOST_NAMED = 10_000


class UploadStats:
    """Belongs to the process, so that counters never go back when a streaming session ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = UploadTotals()
        self._put: dict[str, None] = {}

    def stored(self, *, seconds: float, stored_bytes: int, segment: str = "") -> None:
        """An object is durable; ``segment``: the name of the one that it is all of."""
        with self._lock:
            if segment:
                self._put[segment] = None
                if len(self._put) > _MOST_NAMED:
                    del self._put[next(iter(self._put))]
            before, index = self._totals, bucket_of(seconds)
            self._totals = replace(
                before,
                objects=before.objects + 1,
                segments=before.segments + bool(segment),
                stored_bytes=before.stored_bytes + stored_bytes,
                seconds=before.seconds + seconds,
                buckets=tuple(n + (at == index) for at, n in enumerate(before.buckets)),
            )

    def failed(self, error: BaseException) -> None:
        kind = error_kind(error)
        with self._lock:
            errors = {**self._totals.errors, kind: self._totals.errors[kind] + 1}
            self._totals = replace(self._totals, errors=errors)

    def has_put(self, segment: str) -> bool:
        """Whether a whole segment was put since that was last asked of it; of the last ``_MOST_NAMED`` only."""
        with self._lock:
            return segment in self._put and self._put.pop(segment) is None

    def totals(self) -> UploadTotals:
        return self._totals
