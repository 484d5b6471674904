"""A store for finding out whether something would be allowed: reads are real, a first put only seems to happen.

It lets `pgbackup check` apply the very rules that a backup applies, without leaving anything behind.
"""

from __future__ import annotations

from pgbackup.storage.readonly import ReadOnlyStore


class RehearsalStore(ReadOnlyStore):
    """Says that ``put_if_absent`` stored what no object has the key of; refuses every other write."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self.head(key) is None
