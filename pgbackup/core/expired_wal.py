"""Where no WAL is what expiry leaves: behind a permanent backup it keeps no more than makes that consistent.

A hole that begins anywhere else was made by somebody or something else.
"""

from __future__ import annotations

from pgbackup.core.catalog import Catalog


def expiry_may_end_at(catalog: Catalog) -> frozenset[int]:
    """The numbers of the segments with which such a hole may begin. WAL-G may keep one more where a backup stops right
    at the end of a segment."""
    size = catalog.segment_bytes
    stops = {max(b.stop_lsn, b.start_lsn + 1) for b in catalog.backups if b.permanent}
    return frozenset(number for stop in stops for number in ((stop - 1) // size + 1, stop // size + 1))
