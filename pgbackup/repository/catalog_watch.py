"""The catalog kept up to date with few LIST requests: only what is new is listed, everything once in a while.

New WAL sorts after old WAL, so a listing that begins a little before the newest whole segment shows all that came
since, also what was missing there because several segments are uploaded at once. Beside that each look walks on through
everything that is stored (bucket_audit.py), a LIST of a thousand objects at a time. What does not fit (an object is
gone, or is another one) is answered with a full listing at once, and so is an age of ``full_seconds``.

While nothing moves a look is one LIST: the walk, which in a repository of less than a thousand objects shows all of it;
in a larger one it takes turns with WAL, backups and bookkeeping, so an emptied bucket is seen at the next look.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog, TimeMark
from pgbackup.core.lsn import SegmentName
from pgbackup.repository import keys
from pgbackup.repository.backup_objects import Folder, with_folders
from pgbackup.repository.bucket_audit import BucketAudit
from pgbackup.repository.catalog_reader import CatalogReader
from pgbackup.repository.codec import Codec
from pgbackup.repository.wal_listing import WalListing, read_wal_listing
from pgbackup.storage.base import ObjectStore

FULL_SECONDS = 3600.0
_PAGES_MOVING = 2
_LISTED_AGAIN = 64
"""Whole segments, the newest ones: more than are ever on their way, and with what is new still one LIST."""
_OURS = (keys.CLUSTER,)
"""Bookkeeping that is there as soon as anything was shipped, and stays."""
_BEFORE_OURS = frozenset((keys.ALERTS, keys.LEASE, keys.SEEN_BACKUPS))
"""What may be there before."""


class CatalogWatch:
    """Looks at one repository again and again. For one thread."""

    def __init__(
        self,
        store: ObjectStore,
        codec: Codec,
        *,
        full_seconds: float = FULL_SECONDS,
        put_by_us: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """``put_by_us``: whether this process has put a segment of that name since it was last asked."""
        self._store = store
        self._reader = CatalogReader(store, codec)
        self._full_seconds = full_seconds
        self._catalog: Catalog | None = None
        self._last_full = 0.0
        self._turn = 0
        self._audit = BucketAudit(store, put_by_us)
        self._one_page = True
        self._whole: dict[str, Folder] = {}
        self._replaced: dict[str, None] = {}
        self._replacements = 0
        self.missing_bookkeeping: tuple[str, ...] = ()
        """Bookkeeping objects that an earlier look or the backups prove were there, and are not now."""

    def look(self, now: float, *, moving: bool) -> tuple[Catalog, bool]:
        """The catalog as of now, and whether everything was listed for it.

        ``now``: monotonic seconds; ``moving``: the server wrote WAL since the last look. Raises what the store raises;
        the look after that lists everything.
        """
        known, self._catalog = self._catalog, None
        fresh = None
        if known is not None and now - self._last_full < self._full_seconds:
            fresh = self._refresh(known, moving=moving)
        self._catalog = fresh or self._read_all(now)
        return self._catalog, fresh is None

    @property
    def replaced(self) -> tuple[str, ...]:
        """What was replaced by something else under our eyes, and is still there: backups, and WAL by its keys."""
        more = ("other WAL",) if self._audit.replaced_more else ()
        return (*filter(self._is_there, (*self._replaced, *self._audit.replaced)), *more)

    @property
    def replacements(self) -> int:
        """How often something was seen to be replaced, the same again as well."""
        return self._replacements + self._audit.replacements

    def forget_replaced(self, backup: str, was_read: Callable[[str], bool]) -> None:
        """This backup and the WAL of which ``was_read`` knows the keys have been read, and are whole."""
        self._replaced.pop(backup, None)
        for key in [key for key in self._audit.replaced if was_read(key)]:
            del self._audit.replaced[key]

    def _is_there(self, name: str) -> bool:
        """What is gone is told as such, or was removed by expiry. It may come back as what it was replaced by."""
        if self._catalog is None:
            return True
        if not name.startswith(keys.WAL):
            return self._catalog.backup(name) is not None
        segment = keys.wal_segment(name)
        return segment is None or self._catalog.has(SegmentName.parse(segment, self._catalog.segment_bytes))

    @property
    def sample(self) -> str:
        """The key of some object that the last look has seen, to try whether it can be read; empty for none."""
        return self._audit.sample

    def forget(self) -> None:
        """List everything at the next look."""
        self._catalog = None

    def _read_all(self, now: float) -> Catalog:
        ledger = self._audit.read_ledger()
        catalog, folders = with_folders(self._store, self._reader.read())
        self._note_replaced(catalog, folders)
        self._audit.begin(folders, ledger)
        self._last_full = now
        self.missing_bookkeeping = self._find_missing(catalog)
        return catalog

    def _refresh(self, known: Catalog, *, moving: bool) -> Catalog | None:
        """The catalog with what is new, or None when something does not fit."""
        if moving:
            catalog = self._refresh_wal(known)
            catalog = self._refresh_backups(catalog) if catalog else None
            catalog = self._refresh_marks(catalog) if catalog else None
            return self._walk(catalog, pages=_PAGES_MOVING) if catalog else None
        self._turn += 1
        if self._one_page or self._turn % 2:
            return self._walk(known, pages=1)
        match self._turn // 2 % 3:
            case 0:
                return self._refresh_wal(known)
            case 1:
                return self._refresh_backups(known)
            case _:
                return self._refresh_marks(known)

    def _walk(self, catalog: Catalog, *, pages: int) -> Catalog | None:
        for page in range(pages):
            fits, ended = self._audit.page(catalog, resting=pages == 1)
            if not fits:
                return None
            catalog = _with_marks(catalog, self._audit.marks)
            if ended:
                self._one_page = page == 0
                break
        else:
            self._one_page = False
        return catalog

    def _note_replaced(self, catalog: Catalog, folders: dict[str, Folder]) -> None:
        """A sealed backup never changes. What is missing is told as its problem, and may come back; so may one that is
        gone, as another of the same name."""
        whole = {backup.name: folders[backup.name] for backup in catalog.backups if not backup.problem}
        for name in whole.keys() & self._whole.keys():
            if whole[name] != self._whole[name]:
                self._replacements += 1
                self._replaced[name] = None
        self._whole |= whole

    def _refresh_wal(self, known: Catalog) -> Catalog | None:
        timeline = _newest_timeline(known)
        if timeline is None:
            return None
        again = known.segments[timeline][-_LISTED_AGAIN:]
        first = SegmentName(timeline, again[0], known.segment_bytes)
        infos = self._store.list(keys.WAL, start_after=keys.before_segment(str(first)))
        listed = read_wal_listing(infos, known.segment_bytes)
        there = listed.segments.get(timeline, ())
        if not set(again) <= set(there):
            return None
        new = [number for number in there if number > again[-1]]
        if new and new[-1] - again[-1] > len(new):
            # A hole among the new ones: the ledger of gaps may say why.
            return None
        if any(newer > timeline and newer not in listed.histories for newer in known.histories):
            return None
        return self._with_wal(known, first, listed)

    def _with_wal(self, known: Catalog, first: SegmentName, listed: WalListing) -> Catalog:
        """``listed``: everything from ``first`` on."""
        segments = dict(known.segments)
        for timeline, numbers in listed.segments.items():
            segments[timeline] = _joined(segments.get(timeline, ()), numbers)
        tails = {name: end for name, end in known.tails.items() if str(name) < str(first)}
        histories = {**known.histories, **self._reader.read_histories(listed.histories)}
        return replace(known, segments=segments, tails=tails | dict(listed.tails), histories=histories)

    def _refresh_backups(self, known: Catalog) -> Catalog | None:
        backups = self._reader.read_backups()
        if {backup.name for backup in backups} != {backup.name for backup in known.backups}:
            # One vanished, or is new: its objects are looked at.
            return None
        return replace(known, backups=tuple(_with_problem_of(backup, known) for backup in backups))

    def _refresh_marks(self, known: Catalog) -> Catalog:
        newest: datetime | None = known.marks[-1].moment if known.marks else None
        return replace(known, marks=known.marks + self._reader.read_marks(newest))

    def _find_missing(self, catalog: Catalog) -> tuple[str, ...]:
        """cluster.json is written before the first byte; only what others wrote is without it.

        Alerts and the lease may come before: people are told as well of a server that has never answered, and a base
        backup that is due takes the lease while the stream is not ready to claim the prefix. Whoever holds that notes
        the backups there are, which may be those of others.
        """
        infos, _ = self._store.list_level(keys.BOOKKEEPING)
        there = {info.key for info in infos}
        if not any(_is_ours(backup) for backup in catalog.backups) and there <= _BEFORE_OURS:
            return ()
        return tuple(key for key in _OURS if key not in there)


def _with_marks(catalog: Catalog, listed: Sequence[TimeMark]) -> Catalog:
    """With those that are newer than all that are known."""
    newest = catalog.marks[-1].moment if catalog.marks else None
    new = tuple(mark for mark in listed if newest is None or mark.moment > newest)
    return replace(catalog, marks=catalog.marks + new) if new else catalog


def _is_ours(backup: Backup) -> bool:
    return backup.engine == "pgbackup"


def _with_problem_of(backup: Backup, known: Catalog) -> Backup:
    """What the objects of a backup showed stays, its documents do not show it."""
    before = known.backup(backup.name)
    return replace(backup, problem=backup.problem or (before.problem if before else ""))


def _newest_timeline(catalog: Catalog) -> int | None:
    """The newest timeline with whole segments."""
    return max((timeline for timeline, numbers in catalog.segments.items() if numbers), default=None)


def _joined(known: Sequence[int], listed: Sequence[int]) -> Sequence[int]:
    """``listed``: all from its first number on."""
    joined = array("Q", known[: bisect_left(known, listed[0])])
    joined.extend(listed)
    return joined
