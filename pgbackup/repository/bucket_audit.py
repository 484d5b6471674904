"""Walks through everything that is stored, one LIST of a page at a time, and compares it with what is known.

A full listing of a large repository is many requests, so it is made seldom; a walk sees within one look, or a few where
there is much, that a part, a segment in the middle or the whole bucket is gone, and that an object was replaced. It
only says *that* something does not fit; the full listing that follows says what.

Memory: a few numbers for each backup, and a fingerprint for each segment of WAL, up to ``_MOST_PRINTS`` of them, and
for the ``_MOST_GONE`` that went last: what went may come back as something else.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from pgbackup.core.catalog import Catalog, TimeMark
from pgbackup.core.lsn import SegmentName
from pgbackup.repository import keys
from pgbackup.repository.backup_objects import Folder, fingerprint
from pgbackup.repository.wal_listing import read_wal_listing
from pgbackup.storage.base import ObjectInfo, ObjectStore

_PAGE = 900
"""Less than what one LIST gives (1000), so that a page is one request."""
_MOST_PRINTS = 100_000
_MOST_GONE = 10_000
_BEFORE_ALL = keys.BASEBACKUPS[:-1] + "."
_AFTER_BACKUPS = keys.BASEBACKUPS[:-1] + "0"
_AFTER_MARKS = keys.MARKS[:-1] + "0"
_AFTER_WAL = keys.WAL[:-1] + "0"
_MOST_NAMED = 1000


class BucketAudit:
    """For one thread; ``begin`` is called with each full listing, ``page`` between them."""

    def __init__(self, store: ObjectStore, put_by_us: Callable[[str], bool]) -> None:
        """``put_by_us``: whether we have put a segment since that was last asked: one that was gone and is shipped
        again need not look the same, where it is encrypted."""
        self._store = store
        self._put_by_us = put_by_us
        self._folders: Mapping[str, Folder] = {}
        self._cursor = _BEFORE_ALL
        self._walked: dict[str, Folder] = {}
        self._ledger: frozenset[int] = frozenset()
        self._ledger_walked: set[int] = set()
        self._prints: dict[int, int] = {}
        self._prints_walked: dict[int, int] = {}
        self._prints_gone: dict[int, int] = {}
        self.replaced: dict[str, None] = {}
        """Keys below ``wal_005/`` that were replaced by others under our eyes, oldest first; not all of very many."""
        self.replaced_more = False
        """Whether there were more, which nobody knows any more."""
        self.replacements = 0
        """How often that was seen, also of what is named already."""
        self.marks: tuple[TimeMark, ...] = ()
        """The time marks of the last page."""
        self.sample = ""
        """Any object of the last page that had one: WAL, or a part of a backup."""

    def read_ledger(self) -> frozenset[int]:
        """The bookkeeping that others change, as it is now: to be read before what it says is."""
        infos = [*self._store.list_level(keys.BOOKKEEPING)[0], *self._store.list(keys.GAPS)]
        return frozenset(fingerprint(info) for info in infos if _is_of_ledger(info))

    def begin(self, folders: Mapping[str, Folder], ledger: frozenset[int]) -> None:
        """Everything was listed; ``folders``: what was found in each sealed backup's folder."""
        self._folders = folders
        self._ledger = ledger
        self._prints_walked = self._prints | self._prints_walked
        self._rewind()

    def page(self, catalog: Catalog, *, resting: bool) -> tuple[bool, bool]:
        """List a page and compare. Returns whether it fits to what is known, and whether the walk is at its end.

        ``resting``: nothing should have been written since the catalog was read. Raises what the store raises.
        """
        begin = self._cursor
        infos = list(islice(self._store.list(start_after=begin), _PAGE))
        ended = len(infos) < _PAGE or infos[-1].key >= _AFTER_WAL
        end = _AFTER_WAL if ended else _whole_names(infos)
        infos = [info for info in infos if info.key < end]
        self._choose_sample(infos)
        parsed = (keys.parse_mark(info.key) for info in infos if info.key.startswith(keys.MARKS))
        self.marks = tuple(TimeMark(*mark) for mark in parsed if mark is not None)
        # Each of them, whatever the others say: what was replaced is seen on the way.
        judged = [
            self._backups_fit(infos, begin, end),
            self._wal_fits(infos, begin, end, catalog, resting=resting),
            self._ledger_fits(infos, begin, end),
        ]
        fits = all(judged)
        if ended:
            self._rewind()
        else:
            self._cursor = _after_what_does_not_count(end)
        return fits, ended

    def _rewind(self) -> None:
        self._cursor = _BEFORE_ALL
        self._walked = {}
        self._ledger_walked = set()
        self._prints_gone |= {name: mark for name, mark in self._prints.items() if name not in self._prints_walked}
        self._prints_gone = dict(islice(self._prints_gone.items(), max(0, len(self._prints_gone) - _MOST_GONE), None))
        self._prints, self._prints_walked = self._prints_walked, {}

    def _choose_sample(self, infos: Sequence[ObjectInfo]) -> None:
        found = [i.key for i in infos if i.key.startswith(keys.WAL) or "/tar_partitions/" in i.key]
        if found:
            self.sample = random.choice(found)  # noqa: S311 - no secret

    # -- base backups ---------------------------------------------------------------------------------------------

    def _backups_fit(self, infos: Sequence[ObjectInfo], begin: str, end: str) -> bool:
        seals = set()
        for info in infos:
            if not info.key.startswith(keys.BASEBACKUPS):
                continue
            if info.key.endswith(keys.SENTINEL_SUFFIX):
                seals.add(info.key.removeprefix(keys.BASEBACKUPS).removesuffix(keys.SENTINEL_SUFFIX))
                continue
            name = info.key.removeprefix(keys.BASEBACKUPS).partition("/")[0]
            if name in self._folders:
                self._walked[name] = self._walked.get(name, Folder()).with_object(info)
        if seals != {name for name in self._folders if begin < keys.sentinel(name) < end}:
            return False
        # A folder is judged by the page on which it ends.
        ended = (name for name in self._folders if begin < f"{keys.backup_folder(name)}~" < end)
        return all(self._walked.pop(name, Folder()) == self._folders[name] for name in ended)

    # -- WAL ------------------------------------------------------------------------------------------------------

    def _wal_fits(self, infos: Sequence[ObjectInfo], begin: str, end: str, catalog: Catalog, *, resting: bool) -> bool:
        here = [info for info in infos if info.key.startswith(keys.WAL)]
        for info in here:
            if keys.parse_piece(info.key) is None:
                self._note_print(info)
        listed = read_wal_listing(here, catalog.segment_bytes)
        if resting and begin < keys.WAL and end == _AFTER_WAL and listed.tails != catalog.tails:
            return False
        known = {t: found for t in catalog.segments if (found := _between(catalog, t, begin, end))}
        if listed.segments.keys() != known.keys():
            return False
        # What is new comes after all that is known.
        return all(list(listed.segments[t][: len(numbers)]) == numbers for t, numbers in known.items())

    def _note_print(self, info: ObjectInfo) -> None:
        name, mark = hash(info.key), fingerprint(info)
        gone = self._prints_gone.pop(name, mark)
        is_ours = self._put_by_us(keys.wal_file(info.key)[0])
        if self._prints.get(name, gone) != mark and not is_ours:
            self.replacements += 1
            if len(self.replaced) < _MOST_NAMED:
                self.replaced[info.key] = None
            else:
                self.replaced_more |= info.key not in self.replaced
        if len(self._prints_walked) < _MOST_PRINTS:
            self._prints_walked[name] = mark

    # -- the bookkeeping that others change -----------------------------------------------------------------------

    def _ledger_fits(self, infos: Sequence[ObjectInfo], begin: str, end: str) -> bool:
        self._ledger_walked |= {fingerprint(info) for info in infos if _is_of_ledger(info)}
        return not begin < f"{keys.BOOKKEEPING}~" < end or self._ledger_walked == self._ledger


def _is_of_ledger(info: ObjectInfo) -> bool:
    """Gaps and what people said of them, the last verification, the cluster's document."""
    return info.key.startswith(keys.GAPS) or info.key in (keys.VERIFICATION, keys.CLUSTER)


def _whole_names(infos: Sequence[ObjectInfo]) -> str:
    """The end of a page: before the last segment of WAL on it, whose other objects may be on the next."""
    last = infos[-1].key
    segment = keys.wal_segment(last)
    if segment is None:
        return f"{last}\0"
    first = f"{keys.WAL}{segment}"
    return first if infos[0].key < first else f"{last}\0"


def _after_what_does_not_count(key: str) -> str:
    """Past strangers between our folders, and past the time marks, of which there are many."""
    if key.startswith(keys.MARKS):
        return _AFTER_MARKS
    if _AFTER_BACKUPS <= key < keys.BOOKKEEPING:
        return keys.BOOKKEEPING
    if f"{keys.BOOKKEEPING}~" <= key < keys.WAL:
        return keys.WAL
    # What is listed next comes after the cursor, so the cursor is what comes right before.
    return key[:-1] if key.endswith("\0") else f"{key[:-1]}{chr(ord(key[-1]) - 1)}~"


def _between(catalog: Catalog, timeline: int, begin: str, end: str) -> list[int]:
    """The whole segments of a timeline whose names lie between two keys."""
    numbers = catalog.segments[timeline]

    def name(number: int) -> str:
        return f"{keys.WAL}{SegmentName(timeline, number, catalog.segment_bytes)}"

    low, high = bisect_right(numbers, begin, key=name), bisect_right(numbers, end, key=name)
    if high and name(numbers[high - 1]) == end:
        high -= 1
    return list(numbers[low:high])
