"""Looking for targets in archived WAL."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog, TimeMark
from pgbackup.core.lsn import MIB, Lsn, SegmentName
from pgbackup.core.recovery_plan import plan_restore
from pgbackup.core.recovery_target import Target
from pgbackup.core.timeline import TimelineHistory
from pgbackup.engines.restore.facts import Bookkeeping, probe_end, probe_open_end, read_bookkeeping
from pgbackup.engines.restore.scan import RestoreScan
from pgbackup.engines.wal.read import WalReader
from pgbackup.errors import RestoreError
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.memory import MemoryStore
from tests.made_wal import SYSTEM, MadeWal

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
CODEC = Codec(Compression("zstd", 1))


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


class Archive:
    """Segments 1 to 40 on timeline 1 and a tail; transaction n ends at second n; backups at segments 2 and 20.

    Segments 25 to 30 hold no transaction. Restore point ``p35`` is in segment 35.
    """

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.wal = MadeWal(1)
        self.ends: dict[int, tuple[Lsn, Lsn]] = {}
        for number in range(1, 41):
            self._fill_segment(number)
        self.ends[410] = self.wal.commit(410, at(410))
        for number in self.wal.numbers():
            key = keys.wal(str(SegmentName(1, number, MIB)), "zst")
            self.store.put(key, CODEC.encode(self.wal.segment(number)))
        segment, tail = self.wal.tail()
        self.store.put(keys.piece(str(segment), 0, len(tail), "zst"), CODEC.encode(tail))
        self.catalog = Catalog(
            segment_bytes=MIB,
            backups=(self._backup(2), self._backup(20)),
            segments={1: list(self.wal.numbers())},
            tails={segment: len(tail)},
            system_identifier=SYSTEM,
        )

    def _fill_segment(self, number: int) -> None:
        for step in range(10):
            self.wal.fill_to((step + 0.5) / 10)
            if not 25 <= number <= 30:
                xid = number * 10 + step
                self.ends[xid] = self.wal.commit(xid, at(xid))
        if number == 35:
            self.point = self.wal.restore_point("p35", at(360))
        if number in (36, 37):
            self.ends[-number] = self.wal.restore_point("twice", at(number * 10 + 9))
        self.wal.switch()

    def _backup(self, number: int) -> Backup:
        start = Lsn(number * MIB + MIB // 4)
        return Backup(
            name=f"base_{SegmentName(1, number, MIB)}", timeline=1, start_lsn=start, stop_lsn=Lsn(start + MIB // 4),
            started=at(number * 10), finished=at(number * 10 + 5), modified=at(number * 10 + 5),
            system_identifier=SYSTEM, pg_version=180001, raw_bytes=1, stored_bytes=1, engine="pgbackup",
        )  # fmt: skip

    def reader(self) -> WalReader:
        return WalReader(self.store, CODEC, system_identifier=SYSTEM)

    def evidence(self, target: Target, catalog: Catalog | None = None):
        return RestoreScan(catalog or self.catalog, TimelineHistory(1), None, self.reader()).evidence(target)


@pytest.fixture(scope="module")
def archive() -> Archive:
    return Archive()


@pytest.mark.parametrize(
    ("second", "exclusive", "first_late"),
    [
        (333.5, False, 334),
        (333, False, 334),
        (333, True, 333),
        (250, False, 310),
        (249, False, 310),
        (409.5, False, 410),
        (26, False, 27),
        (205.5, False, 206),
    ],
)
def test_a_time_is_found_as_the_first_transaction_after_it(archive, second, exclusive, first_late):
    evidence = archive.evidence(Target("time", time=at(second), exclusive=exclusive))
    assert (evidence.stop.start, evidence.stop.end) == archive.ends[first_late]
    assert evidence.stop.time == at(first_late)


def test_a_time_is_found_by_few_reads(archive):
    before = archive.store.calls["open_read"]
    archive.evidence(Target("time", time=at(333.5)))
    assert archive.store.calls["open_read"] - before < 20


def test_a_time_after_the_last_transaction(archive):
    evidence = archive.evidence(Target("time", time=at(500)))
    assert evidence.stop is None
    assert evidence.last_commit == at(410)
    assert evidence.last_record == archive.ends[410][0]


def test_a_time_before_the_first_backup_needs_no_reading(archive):
    assert archive.evidence(Target("time", time=at(3))) is None


@pytest.mark.parametrize(("xid", "backup"), [(333, 20), (100, 2), (210, 20), (203, 2)])
def test_a_transaction_decides_the_backup(archive, xid, backup):
    target = Target("xid", xid=xid)
    evidence = archive.evidence(target)
    assert (evidence.stop.start, evidence.stop.end) == archive.ends[xid]
    plan = plan_restore(archive.catalog, target, evidence=evidence)
    assert plan.backup.start_lsn // MIB == backup


def test_a_restore_point(archive):
    evidence = archive.evidence(Target("name", name="p35"))
    assert (evidence.stop.start, evidence.stop.end) == archive.point
    assert evidence.others == ()


def test_restore_points_of_one_name(archive):
    evidence = archive.evidence(Target("name", name="twice"))
    assert (evidence.stop.start, evidence.stop.end) == archive.ends[-36]
    assert [(other.start, other.end) for other in evidence.others] == [archive.ends[-37]]
    assert evidence.others[0].time == at(379)


@pytest.mark.parametrize("target", [Target("xid", xid=9999), Target("name", name="p36")])
def test_what_is_nowhere(archive, target):
    evidence = archive.evidence(target)
    assert evidence.stop is None
    assert evidence.last_commit == at(410)


def test_an_lsn_is_the_first_record_from_it_on(archive):
    start, end = archive.ends[333]
    evidence = archive.evidence(Target("lsn", lsn=Lsn(start - 1)))
    assert (evidence.stop.start, evidence.stop.end) == (start, end)
    last, _ = archive.ends[410]
    assert archive.evidence(Target("lsn", lsn=Lsn(last + 8))).stop is None
    assert archive.evidence(Target("lsn", lsn=Lsn(last + 8))).last_record == last
    assert archive.evidence(Target("lsn", lsn=Lsn(99 * MIB))) is None


@pytest.mark.parametrize("target", [Target(), Target("immediate")])
def test_targets_that_need_no_evidence(archive, target):
    assert archive.evidence(target) is None


def test_marks_choose_where_to_look(archive):
    """The server's clock says that the second backup had ended long before its own time says so."""
    marks = (TimeMark(at(150), 1, Lsn(21 * MIB)),)
    evidence = archive.evidence(Target("time", time=at(204.5)), replace(archive.catalog, marks=marks))
    assert evidence.stop.start == archive.ends[205][0]


# -- facts ------------------------------------------------------------------------------------------------------------


def test_the_end_is_probed_behind_the_listing(archive):
    listed = replace(archive.catalog, segments={1: [n for n in range(1, 41) if n not in (37, 39)]}, tails={})
    probed = probe_end(listed, TimelineHistory(1), Lsn(20 * MIB), archive.reader())
    assert list(probed.segments[1]) == list(range(1, 41))
    assert probe_end(archive.catalog, TimelineHistory(1), Lsn(20 * MIB), archive.reader()) is archive.catalog


class TestTheOpenEnd:
    """What is there when the plan is made counts, not what a listing showed before."""

    @pytest.fixture
    def archive(self):
        return Archive()

    def probe(self, archive: Archive, catalog: Catalog | None = None):
        reader = archive.reader()
        return probe_open_end(archive.store, catalog or archive.catalog, TimelineHistory(1), Lsn(20 * MIB), reader)

    def put_piece(self, archive: Archive, first: int, end: int, data: bytes = b"x") -> str:
        (segment,) = archive.catalog.tails
        key = keys.piece(str(segment), first, end, "zst")
        archive.store.put(key, data)
        return key

    def test_a_piece_that_arrived_since_the_listing_is_part_of_it(self, archive):
        (segment, end) = next(iter(archive.catalog.tails.items()))
        self.put_piece(archive, end, end + 300)
        probed = self.probe(archive)
        assert probed.catalog.tails == {segment: end + 300}
        assert probed.named == segment.start + end + 300
        plan = plan_restore(probed.catalog, Target(), last_confirmed=(1, probed.named))
        assert plan.end == probed.named

    def test_a_piece_before_it_that_is_on_its_way_is_waited_for(self, archive):
        (segment, end) = next(iter(archive.catalog.tails.items()))
        self.put_piece(archive, end + 300, end + 500)
        arrives = threading.Timer(0.3, self.put_piece, (archive, end, end + 300))
        arrives.start()
        probed = self.probe(archive)
        arrives.join()
        assert probed.catalog.tails == {segment: end + 500}
        assert probed.named == segment.start + end + 500

    @pytest.mark.parametrize("lost", ["never there", "emptied"])
    def test_a_lost_piece_does_not_shorten_the_archive_unnoticed(self, archive, lost):
        (segment, end) = next(iter(archive.catalog.tails.items()))
        self.put_piece(archive, end + 300, end + 500)
        if lost == "emptied":
            self.put_piece(archive, end, end + 300, b"")
        probed = self.probe(archive)
        assert (probed.catalog.tails, probed.named) == ({segment: end}, segment.start + end + 500)
        with pytest.raises(RestoreError, match="had been confirmed as durable"):
            plan_restore(probed.catalog, Target(), last_confirmed=(1, probed.named))

    def test_a_segment_that_became_whole_meanwhile(self, archive):
        (segment, _) = next(iter(archive.catalog.tails.items()))
        for info in list(archive.store.list(keys.pieces_folder(str(segment)))):
            archive.store.delete([info.key])
        archive.store.put(keys.wal(str(segment), "zst"), CODEC.encode(bytes(MIB)))
        probed = self.probe(archive)
        assert probed.catalog.has(segment)
        assert probed.named is None


def test_bookkeeping_is_read_if_it_can_be():
    store = MemoryStore()
    assert read_bookkeeping(store) == Bookkeeping()
    store.put(keys.STATUS, b'{"timeline": 2, "confirmed": "0/5000028"}')
    assert read_bookkeeping(store) == Bookkeeping((2, Lsn.parse("0/5000028")), 2)
    store.put(keys.LEASE, b'{"timeline": 3, "writer": "x"}')
    assert read_bookkeeping(store).timeline == 3
    for damaged in (b"", b"[]", b'{"timeline": "x"}', b'{"timeline": 2, "confirmed": 7}'):
        store.put(keys.STATUS, damaged)
        assert read_bookkeeping(store).last_confirmed is None
