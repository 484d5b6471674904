"""Base backups that vanished: those that an earlier look has listed, a later one does not, and no expiry removed.

What is left may be whole, and where nothing is left the base backup that is taken at once soon is; so nothing else
would tell for long that moments are lost which the retention promises. The first look of a process compares with what
the last process saw.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from pgbackup.core.health_facts import LastRun, Noticed
from pgbackup.errors import CorruptObject
from pgbackup.repository.expiry_record import read_record
from pgbackup.storage.base import ObjectStore
from pgbackup.supervisor.seen_backups import SeenBackups

_TOLD_WITHIN = timedelta(minutes=5)
"""Right after a start alerts wait a minute. One that is told is not told anew by the next process."""


class VanishedBackups:
    """``look`` is told at each look which backups there are, oldest first, and ``before_look`` comes before they are
    listed. For one thread.

    ``others_expire``: expiry is left to something that keeps no record; then old backups may go, the newest may not.
    """

    def __init__(self, store: ObjectStore, seen: SeenBackups, *, others_expire: bool = False) -> None:
        self._store = store
        self._seen = seen
        self._others_expire = others_expire
        self._known: tuple[str, ...] | None = None
        self._last_process: tuple[str, ...] = ()
        self._gone: dict[str, Noticed] = {}

    def before_look(self) -> None:
        """Read what the last process saw. A backup that is sealed and noted while others are listed would otherwise be
        noted and not listed. Raises what the store raises."""
        if self._known is None:
            self._last_process = self._seen.read()

    def look(self, names: Iterable[str], verification: LastRun | None, now: datetime) -> tuple[str, ...]:
        """What has vanished, until it is back, expiry accounts for it, or a later verification has found whole what is
        left; ``now`` by the clock of verifications. Raises what the store raises."""
        there = tuple(names)
        missed = self._missed(self._known, there) if self._known is not None else self._missed_before(there)
        gone = dict.fromkeys(missed, Noticed(now, verification)) | self._gone
        if gone:
            accounted = self._removed_by_expiry().union(there)
            gone = {
                name: noticed
                for name, noticed in gone.items()
                if name not in accounted and not noticed.is_ended_by(verification)
            }
        self._known, self._gone = there, gone
        # Behind those that are there: the newest that is known to be gone is what counts where others expire.
        untold = (name for name, noticed in gone.items() if now - noticed.moment < _TOLD_WITHIN)
        self._seen.write((*there, *untold))
        return tuple(gone)

    @property
    def any(self) -> bool:
        """Whether something had vanished at the last look."""
        return bool(self._gone)

    def _missed(self, known: tuple[str, ...], there: tuple[str, ...]) -> list[str]:
        if known and self._others_expire and known[-1] in there:
            return []
        return [name for name in known if name not in there]

    def _missed_before(self, there: tuple[str, ...]) -> list[str]:
        """What has gone since the last process looked. Where others expire they may have removed all that it knew, the
        oldest first, if there are new ones."""
        known = self._last_process
        if self._others_expire and there and not any(name in there for name in known):
            return []
        return self._missed(known, there)

    def _removed_by_expiry(self) -> frozenset[str]:
        """It writes down what is to go before that goes, and what went after it."""
        try:
            record = read_record(self._store)
        except CorruptObject:
            return frozenset()
        return record.accounted if record is not None else frozenset()
