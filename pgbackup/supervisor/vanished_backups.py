"""Base backups that vanished: those that an earlier look has listed, a later one does not, and no expiry removed.

What is left may be whole, and where nothing is left the base backup that is taken at once soon is; so nothing else
would tell for long that moments are lost which the retention promises.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pgbackup.core.health_facts import LastRun, Noticed
from pgbackup.engines.expire.record import read_record
from pgbackup.errors import CorruptObject
from pgbackup.storage.base import ObjectStore


class VanishedBackups:
    """``look`` is told at each look which backups there are, oldest first. For one thread.

    ``others_expire``: expiry is left to something that keeps no record; then old backups may go, the newest may not.
    """

    def __init__(self, store: ObjectStore, *, others_expire: bool = False) -> None:
        self._store = store
        self._others_expire = others_expire
        self._known: tuple[str, ...] = ()
        self._gone: dict[str, Noticed] = {}

    def look(self, names: Iterable[str], verification: LastRun | None, now: datetime) -> tuple[str, ...]:
        """What has vanished, until it is back, expiry accounts for it, or a later verification has found whole what is
        left; ``now`` by the clock of verifications. Raises what the store raises."""
        there = tuple(names)
        if self._known and not (self._others_expire and self._known[-1] in there):
            noticed = Noticed(now, verification)
            self._gone = {name: noticed for name in self._known if name not in there} | self._gone
        self._known = there
        if self._gone:
            accounted = self._removed_by_expiry().union(there)
            self._gone = {
                name: noticed
                for name, noticed in self._gone.items()
                if name not in accounted and not noticed.is_ended_by(verification)
            }
        return tuple(self._gone)

    def _removed_by_expiry(self) -> frozenset[str]:
        """It writes down what is to go before that goes, and what went after it."""
        try:
            record = read_record(self._store)
        except CorruptObject:
            return frozenset()
        return record.removing | record.last_removed if record is not None else frozenset()
