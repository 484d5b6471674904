"""Removes what is of no more use and may stay: credentials that cannot delete must not stop backups.

Only for objects whose presence harms nothing. Expiry has a rule of its own: it counts what the store keeps.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pgbackup.errors import DeleteRefused
from pgbackup.storage.base import ObjectStore

_log = logging.getLogger(__name__)


def tidy(store: ObjectStore, keys: Sequence[str]) -> bool:
    """Delete objects; False when the store keeps some of them. Raises whatever else the store raises."""
    try:
        store.delete(keys)
    except DeleteRefused as refusal:
        _log.info("objects that are not needed any more stay: %s", refusal)
        return False
    return True
