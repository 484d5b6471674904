"""The WAL of a base backup, read back: every segment's size, pages and place, on every timeline that goes on from it.

The first segment of a new timeline begins with a copy of its parent's; where both are stored they have to agree, or the
timelines do not belong together. Pieces of open segments are read too. Where nothing else vouches for the bytes (stored
plain, or in a frame without a checksum) every record is held against its own checksum.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.removed_wal import RemovedWal
from pgbackup.core.timeline import history_name
from pgbackup.core.wal_segment_check import SegmentCheck
from pgbackup.engines.base import ProgressSink
from pgbackup.engines.restore.facts import read_bookkeeping
from pgbackup.engines.verify.pieces import PiecesCheck
from pgbackup.engines.verify.report import CheckedWal, Findings
from pgbackup.engines.verify.wal_paths import (
    Span,
    ends_by_expiry,
    histories_of,
    missing_segments,
    paths_of,
    spans_of,
    without_history,
)
from pgbackup.engines.verify.workers import Workers
from pgbackup.engines.wal.read import WalReader
from pgbackup.engines.wal.records_check import RecordsCheck
from pgbackup.errors import CorruptObject, NotInArchive
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec
from pgbackup.repository.expiry_record import read_removed_wal
from pgbackup.repository.wal_objects import open_stored, stored_keys
from pgbackup.storage.base import ObjectStore

_READ_BYTES = 1 << 20


class WalCheck:
    """Checks the WAL of one backup; ``run`` once. ``only_needed``: not beyond what makes the backup consistent."""

    def __init__(
        self, store: ObjectStore, codec: Codec, catalog: Catalog, backup: Backup, findings: Findings, only_needed: bool
    ) -> None:
        self._store = store
        self._codec = codec
        self._catalog = catalog
        self._backup = backup
        self._findings = findings
        self._only_needed = only_needed
        self._extension = codec.extension
        self._system_identifier = backup.system_identifier or catalog.system_identifier or 0
        self._paths = paths_of(catalog, backup, only_needed=only_needed)
        self._histories = histories_of(self._paths)
        self._tail_ends: dict[SegmentName, int] = {}

    def run(self, workers: Workers, progress: ProgressSink) -> tuple[CheckedWal, ...]:
        """Read everything; returns what was read, a row for each timeline."""
        catalog, backup, size = self._catalog, self._backup, self._catalog.segment_bytes
        spans = spans_of(catalog, backup, self._paths, only_needed=self._only_needed)
        progress.start(f"WAL from {backup.start_lsn}", sum(span.end - span.first for span in spans) * size)
        try:
            workers.run_all(self._work(spans, workers.advance_of(progress)))
        finally:
            progress.finish()
        self._name_missing_histories()
        # After the catalog, for it is written before WAL goes.
        removed = RemovedWal() if self._only_needed else self._removed_wal()
        for missing in missing_segments(catalog, backup, self._paths, removed, only_needed=self._only_needed):
            if stored_keys(self._store, str(missing.segment)):
                # On its way when the catalog was read, or empty, which a catalog passes over: reading it tells.
                self._check_segment(missing.segment, lambda _: None)
            else:
                key = keys.wal(str(missing.segment), self._codec.extension)
                self._findings.add("missing", key, missing.why)
        if not self._only_needed:
            self._check_confirmed(removed)
        return tuple(row for span in spans if (row := self._checked(span)) is not None)

    def _removed_wal(self) -> RemovedWal:
        """What expiry wrote down. While that cannot be read it excuses nothing."""
        try:
            return read_removed_wal(self._store)
        except CorruptObject as exc:
            self._findings.note(f"which WAL expiry has removed is not known, so it counts as missing: {exc}")
            return RemovedWal()

    def _check_confirmed(self, removed: RemovedWal) -> None:
        """WAL that was confirmed to the server as durable must be there to its last byte, if the backup still leads
        there."""
        confirmed = read_bookkeeping(self._store).last_confirmed
        if confirmed is None or confirmed[0] not in self._histories:
            return
        timeline, lsn = confirmed
        reach = self._catalog.reach(self._backup, timeline)
        if reach is None or reach.end >= lsn:
            return
        if ends_by_expiry(self._catalog, self._backup, self._histories[timeline], removed):
            return
        # The note may be newer than the catalog.
        reach = read_catalog(self._store, self._codec, with_marks=False).reach(self._backup, timeline)
        if reach is None or reach.end < lsn:
            end = reach.end if reach is not None else self._backup.start_lsn
            size = self._catalog.segment_bytes
            segment = self._histories[timeline].segment_for(end // size, size)
            problem = f"WAL to {lsn} of timeline {timeline} had been confirmed as durable, and is there to {end} only"
            self._findings.add("missing", f"{keys.WAL}{segment}", problem)

    def _name_missing_histories(self) -> None:
        for timeline in without_history(self._catalog, self._backup, only_needed=self._only_needed):
            key = keys.wal(history_name(timeline), self._codec.extension)
            problem = f"it is missing or damaged: nobody knows how timeline {timeline} came about"
            self._findings.add("missing", key, problem)

    def _checked(self, span: Span) -> CheckedWal | None:
        size = self._catalog.segment_bytes
        tail = self._tail_ends.get(SegmentName(span.timeline, span.end, size), 0)
        start, end = Lsn(span.first * size), Lsn(span.end * size + tail)
        return CheckedWal(span.timeline, start, end) if end > start else None

    # -- work ---------------------------------------------------------------------------------------------------

    def _work(self, spans: list[Span], advance: Callable[[int], None]) -> Iterator[Callable[[], None]]:
        size = self._catalog.segment_bytes
        for span in spans:
            yield partial(self._check_fork, span)
            yield from (partial(self._check_pieces, segment) for segment in self._with_pieces(span))
            for number in range(span.first, span.end):
                yield partial(self._check_segment, SegmentName(span.timeline, number, size), advance)

    def _with_pieces(self, span: Span) -> list[SegmentName]:
        """The segments of a row's timeline that have pieces; when only the needed WAL counts, not behind the row."""
        found = [s for s in self._catalog.tails if s.timeline == span.timeline and s.number >= span.first]
        if self._only_needed:
            last = max(self._backup.stop_lsn - 1, 0) // self._catalog.segment_bytes
            found = [s for s in found if s.number <= last]
        return sorted(found, key=lambda s: s.number)

    def _check_segment(self, segment: SegmentName, advance: Callable[[int], None]) -> None:
        key = keys.wal(str(segment), self._extension)
        with ExitStack() as stack:
            stack.enter_context(self._findings.catching(key))
            key, source = stack.enter_context(open_stored(self._store, str(segment), self._extension))
            self._extension = keys.split_extension(key)[1]
            plain = threading.Event()
            stream = stack.enter_context(self._codec.open(key, source, on_unproven=plain.set))
            pages, records = self._pages(segment), RecordsCheck()
            records.begin(segment)
            try:
                while data := stream.read(_READ_BYTES):
                    pages.feed(data)
                    if plain.is_set() and pages.may_be_read:
                        records.feed(data)
                    advance(len(data))
                pages.finish(segment.segment_bytes)
            except ValueError as exc:
                raise CorruptObject(key, str(exc)) from exc
        self._findings.count(objects=1, segments=1, raw_bytes=segment.segment_bytes)

    def _pages(self, segment: SegmentName) -> SegmentCheck:
        return SegmentCheck(
            segment,
            self._histories[segment.timeline],
            system_identifier=self._system_identifier,
            pg_major=self._backup.pg_major,
        )

    def _check_pieces(self, segment: SegmentName) -> None:
        whole = next(iter(stored_keys(self._store, str(segment))), None) if self._catalog.has(segment) else None
        check = PiecesCheck(self._store, self._codec, self._findings, lambda: self._pages(segment))
        self._tail_ends[segment] = check.check(segment, whole)

    # -- timeline switches --------------------------------------------------------------------------------------

    def _check_fork(self, span: Span) -> None:
        """The segment of a timeline's fork must begin with what its parent's has up to there."""
        history, size = self._histories[span.timeline], self._catalog.segment_bytes
        fork = history.begin
        if fork % size == 0:
            return
        child = SegmentName.containing(span.timeline, fork, size)
        older = SegmentName(history.forked_from, child.number, size)
        there = [self._stored_bytes(child), self._stored_bytes(older)]
        common = min(fork % size, *there)
        if child.number < span.first or not common:
            return
        key = keys.wal(str(child), self._extension)
        with self._findings.catching(key):
            if self._begin_crc(child, common) != self._begin_crc(older, common):
                raise CorruptObject(
                    key,
                    f"its first {common} bytes are not those of {older}, from which timeline {span.timeline} forked",
                )

    def _stored_bytes(self, segment: SegmentName) -> int:
        return segment.segment_bytes if self._catalog.has(segment) else self._catalog.tails.get(segment, 0)

    def _begin_crc(self, segment: SegmentName, size: int) -> int:
        """The CRC of a segment's first bytes. Raises CorruptObject."""
        reader = WalReader(self._store, self._codec)
        blocks = reader.segment(segment) if self._catalog.has(segment) else reader.tail(segment)
        crc = 0
        try:
            for block in blocks:
                crc = zlib.crc32(block[:size], crc)
                size -= len(block)
                if size <= 0:
                    break
        except NotInArchive as exc:
            raise CorruptObject(keys.wal(str(segment), self._extension), exc.message) from exc
        return crc
