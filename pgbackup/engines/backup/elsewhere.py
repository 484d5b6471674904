"""Whether another process is taking a base backup just now: two at once only slow each other, and the server, down."""

from __future__ import annotations

from pgbackup.core.health_backups import is_getting_on
from pgbackup.engines.backup.intent import read_intents, store_clock
from pgbackup.engines.backup.seal import is_sealed
from pgbackup.storage.base import ObjectStore


def backup_elsewhere(store: ObjectStore, host: str) -> str:
    """The base backup that lives and gets on, and whose it is; empty for none. Raises what the store raises."""
    now = store_clock(store)
    for found in read_intents(store):
        gets_on = found.life(host, now) == "alive" and is_getting_on(found.under_way(now))
        # Where nothing can be deleted the intents of sealed backups stay.
        if gets_on and not is_sealed(store, found.intent.backup):
            return f"{found.intent.backup}, which {found.intent.owner} is taking"
    return ""
