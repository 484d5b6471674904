"""Verification of WAL: every path that goes on from a backup, holes, forks, pieces; and writers in between."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pgbackup.core.lsn import MIB, Lsn, SegmentName
from pgbackup.core.removed_wal import RemovedWal
from pgbackup.engines.base import SilentProgress
from pgbackup.engines.verify.report import VerifyReport
from pgbackup.engines.verify.verify import choose_backup, verify_backup
from pgbackup.engines.verify.wal_paths import Span, paths_of, spans_of
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec, Compression
from pgbackup.repository.expiry_record import ExpiryRecord
from tests.made_backup import NOON, MadeRepository
from tests.made_wal import MadeWal

START, STOP = Lsn(3 * MIB + 40), Lsn(4 * MIB + 400)
LZ4 = Codec(Compression("lz4"))


@dataclass
class Branches:
    """A backup on timeline 1, which goes on to segment 7; timeline 2 forked off in segment 5, timeline 3 off that."""

    made: MadeRepository = field(default_factory=MadeRepository)
    fork_2: Lsn = Lsn(0)
    fork_3: Lsn = Lsn(0)

    def __post_init__(self) -> None:
        self.made.claim()
        self.made.backup(START, STOP)
        first = MadeWal(3)
        first.fill_to(2.5)
        second = first.branch(2)
        self.fork_2 = second.position
        first.fill_to(2.7)
        self.made.wal(first)
        second.fill_to(2.3)
        third = second.branch(3)
        self.fork_3 = third.position
        self.made.wal(second, first=5)
        third.fill_to(1.2)
        self.made.wal(third, first=7)
        self.made.history(2, (1, self.fork_2))
        self.made.history(3, (1, self.fork_2), (2, self.fork_3))

    def verify(self) -> VerifyReport:
        catalog = read_catalog(self.made.store, self.made.codec)
        backup = choose_backup(catalog, None)
        return verify_backup(self.made.store, self.made.codec, catalog, backup, progress=SilentProgress())

    def problems(self) -> dict[str, str]:
        return {finding.object: finding.problem for finding in self.verify().findings}


@pytest.fixture
def branches() -> Branches:
    return Branches()


def piece_keys(branches: Branches, timeline: int, number: int) -> list[str]:
    folder = keys.pieces_folder(str(SegmentName(timeline, number, MIB)))
    return [info.key for info in branches.made.store.list(folder)]


def test_every_branch_is_read_once(branches: Branches) -> None:
    report = branches.verify()
    assert report.findings == ()
    assert [(row.timeline, row.start // MIB, row.end // MIB) for row in report.wal] == [(1, 3, 7), (2, 5, 7), (3, 7, 8)]
    catalog = read_catalog(branches.made.store, branches.made.codec)
    backup = choose_backup(catalog, None)
    paths = paths_of(catalog, backup, only_needed=False)
    assert [path.timeline for path in paths] == [1, 2, 3]
    assert spans_of(catalog, backup, paths, only_needed=False) == [Span(1, 3, 7), Span(2, 5, 7), Span(3, 7, 8)]
    needed = paths_of(catalog, backup, only_needed=True)
    assert spans_of(catalog, backup, needed, only_needed=True) == [Span(1, 3, 5)]


@pytest.mark.parametrize(("timeline", "number"), [(1, 3), (1, 4), (1, 5), (2, 5), (2, 6)])
def test_a_missing_segment_with_wal_behind_it(branches: Branches, timeline: int, number: int) -> None:
    key = branches.made.segment_key(timeline, number)
    branches.made.store.delete([key])
    problems = branches.problems()
    assert set(problems) == {key}
    assert ("there is WAL behind it" in problems[key]) == (number >= 5)
    assert ("to become consistent" in problems[key]) == (number < 5)


def test_several_missing_segments_are_all_named(branches: Branches) -> None:
    missing = [branches.made.segment_key(1, 5), branches.made.segment_key(1, 6)]
    branches.made.store.delete(missing)
    assert set(branches.problems()) == set(missing)


def test_confirmed_wal_that_is_gone_is_named_as_it_was_stored(branches: Branches) -> None:
    """What is missing of timeline 3's path is a segment of timeline 2, under whose name it was stored."""
    confirmed = Lsn(7 * MIB + MIB // 4)
    branches.made.store.put(keys.STATUS, f'{{"timeline": 3, "confirmed": "{confirmed}"}}'.encode())
    assert branches.verify().ok
    branches.made.store.delete([branches.made.segment_key(2, 6)])
    problem = branches.problems()[f"{keys.WAL}{SegmentName(2, 6, MIB)}"]
    assert problem == f"WAL to {confirmed} of timeline 3 had been confirmed as durable, and is there to 0/600000 only"


# -- what expiry removed ----------------------------------------------------------------------------------------------


@pytest.fixture
def stripped(branches: Branches) -> Branches:
    """Expiry left the backup no more WAL than makes it consistent; a later backup needs what is there behind that."""
    write_down(branches, {1: [(0, 3), (5, 6)], 2: [(0, 6)]})
    branches.made.store.delete([branches.made.segment_key(1, 5), branches.made.segment_key(2, 5)])
    return branches


def write_down(branches: Branches, removed: dict[int, list[tuple[int, int]]]) -> None:
    record = ExpiryRecord(NOON, None, frozenset(), removed_wal=RemovedWal(removed))
    branches.made.store.put(keys.EXPIRY, record.encode())


def test_wal_that_expiry_removed_is_not_missing(stripped: Branches) -> None:
    report = stripped.verify()
    assert (report.findings, report.notes) == ((), ())
    assert [(row.timeline, row.start // MIB, row.end // MIB) for row in report.wal] == [(1, 3, 5)]


def test_confirmed_wal_behind_what_expiry_removed_is_not_missing(stripped: Branches) -> None:
    """But where nothing is left of what came after it."""
    store, confirmed = stripped.made.store, Lsn(7 * MIB + MIB // 4)
    store.put(keys.STATUS, f'{{"timeline": 3, "confirmed": "{confirmed}"}}'.encode())
    assert stripped.verify().ok
    store.delete([stripped.made.segment_key(2, 6), stripped.made.segment_key(3, 7), *piece_keys(stripped, 3, 8)])
    assert list(stripped.problems()) == [f"{keys.WAL}{SegmentName(2, 5, MIB)}"]


@pytest.mark.parametrize("number", [3, 4])
def test_what_a_backup_needs_is_missing_whatever_expiry_wrote_down(branches: Branches, number: int) -> None:
    write_down(branches, {1: [(0, 1000)], 2: [(0, 1000)], 3: [(0, 1000)]})
    key = branches.made.segment_key(1, number)
    branches.made.store.delete([key])
    problems = branches.problems()
    assert list(problems) == [key]
    assert "to become consistent" in problems[key]


def test_what_was_lost_before_expiry_came_is_missing(branches: Branches) -> None:
    lost, removed = branches.made.segment_key(1, 5), branches.made.segment_key(1, 6)
    branches.made.store.delete([lost, removed])
    write_down(branches, {1: [(6, 7)]})
    assert list(branches.problems()) == [lost]
    write_down(branches, {2: [(0, 100)]})
    assert set(branches.problems()) == {lost, removed}


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"when": null}'])
def test_a_record_of_expiry_that_cannot_be_read_excuses_nothing(stripped: Branches, garbage: bytes) -> None:
    stripped.made.store.put(keys.EXPIRY, garbage)
    assert set(stripped.problems()) == {stripped.made.segment_key(1, 5), stripped.made.segment_key(2, 5)}
    [note] = stripped.verify().notes
    assert note.startswith("which WAL expiry has removed is not known")
    assert keys.EXPIRY in note


def test_the_end_of_a_timeline_is_no_hole(branches: Branches) -> None:
    branches.made.store.delete(piece_keys(branches, 1, 7) + piece_keys(branches, 3, 8))
    report = branches.verify()
    assert report.ok
    assert [row.end // MIB for row in report.wal] == [7, 7, 8]


def test_wal_of_the_wrong_branch(branches: Branches) -> None:
    key = branches.made.segment_key(2, 6)
    branches.made.store.put(key, branches.made.store.get(branches.made.segment_key(1, 6)))
    assert "timeline 1 instead of 2" in branches.problems()[key]


def test_timelines_that_do_not_belong_together(branches: Branches) -> None:
    """The child's first segment does not begin with the parent's bytes: other rows, same headers."""
    other = MadeWal(3)
    other.fill_to(1.0)
    other.filler(77)
    other.fill_to(2.5)
    child = other.branch(2)
    child.fill_to(0.9)
    child.fill_to(1.4)
    key = branches.made.segment_key(2, 5)
    branches.made.put(key, child.segment(5))
    problems = branches.problems()
    assert set(problems) == {key}
    assert "are not those of 000000010000000000000005" in problems[key] or "is of timeline" in problems[key]


def test_a_history_that_is_missing_or_damaged(branches: Branches) -> None:
    key = keys.wal("00000002.history", "zst")
    branches.made.store.put(key, b"x")
    problems = branches.problems()
    assert list(problems) == [key]
    branches.made.store.delete([key])
    assert list(branches.problems()) == [key]


def test_a_timeline_that_only_a_broken_backup_is_named_for_is_its_own_matter(branches: Branches) -> None:
    made = branches.made
    good = choose_backup(read_catalog(made.store, made.codec), None)
    broken = keys.backup_name(255, Lsn(9 * MIB), MIB)
    made.store.put(keys.sentinel(broken), b"{")
    catalog = read_catalog(made.store, made.codec)
    for name, ok in ((good.name, True), (broken, False)):
        backup = choose_backup(catalog, name)
        report = verify_backup(made.store, made.codec, catalog, backup, progress=SilentProgress())
        assert report.ok is ok
    assert choose_backup(catalog, None).name == broken, "so that is what a plain verification is red about"
    assert keys.sentinel(broken) in {finding.object for finding in report.findings}


def test_segments_of_another_writer_in_another_format(branches: Branches) -> None:
    made = branches.made
    for number in (3, 4):
        data = made.codec.decode(made.segment_key(1, number), made.store.get(made.segment_key(1, number)))
        made.store.delete([made.segment_key(1, number)])
        made.store.put(made.segment_key(1, number).replace(".zst", ".lz4"), LZ4.encode(data))
    assert branches.verify().ok
    damaged = made.segment_key(1, 4).replace(".zst", ".lz4")
    made.store.put(damaged, made.store.get(damaged)[:-2])
    assert set(branches.problems()) == {damaged}


# -- WAL that nothing vouches for -------------------------------------------------------------------------------------


@pytest.fixture
def plain() -> Branches:
    return Branches(MadeRepository(codec=Codec(Compression("none"))))


def flipped(branches: Branches, key: str, offset: int) -> dict[str, str]:
    """What is told when one bit is another."""
    data = branches.made.store.get(key)
    branches.made.store.put(key, data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
    return branches.problems()


def test_a_flipped_bit_in_a_plain_segment(plain: Branches) -> None:
    """The pages' headers do not show it, and recovery would end there without a word."""
    assert plain.verify().ok
    key = plain.made.segment_key(1, 4)
    assert "does not have its checksum" in flipped(plain, key, 500_000)[key]


def test_a_flipped_bit_in_a_plain_piece(plain: Branches) -> None:
    key = piece_keys(plain, 3, 8)[0]
    assert "does not have its checksum" in flipped(plain, key, 20_000)[key]


# -- pieces -----------------------------------------------------------------------------------------------------------


def test_damaged_pieces_are_named(branches: Branches) -> None:
    first, second, third = piece_keys(branches, 3, 8)
    store = branches.made.store
    for key in (first, second, third):
        data = store.get(key)
        store.put(key, data[:-3])
        assert set(branches.problems()) == {key}
        store.put(key, branches.made.codec.encode(b"too short"))
        assert "9 bytes instead of" in branches.problems()[key]
        store.put(key, data)
    store.put(second, store.get(third))
    assert set(branches.problems()) <= {second, third}
    assert branches.problems()


def test_a_piece_that_is_missing_in_between(branches: Branches) -> None:
    second = piece_keys(branches, 3, 8)[1]
    branches.made.store.delete([second])
    report = branches.verify()
    [finding] = report.findings
    assert (finding.kind, finding.object) == ("missing", keys.pieces_folder("000000030000000000000008"))
    assert report.wal[2].end < Lsn(8 * MIB + 100_000)


def test_pieces_that_overlap_have_to_agree(branches: Branches) -> None:
    store, codec = branches.made.store, branches.made.codec
    first, second, _ = piece_keys(branches, 3, 8)
    both = codec.decode(first, store.get(first)) + codec.decode(second, store.get(second))
    name = keys.parse_piece(second)
    assert name is not None
    merged = keys.piece(name.segment, 100, name.end, "zst")
    store.put(merged, codec.encode(both[100:]))
    assert branches.verify().ok
    store.put(merged, codec.encode(both[100:-1] + b"!"))
    assert set(branches.problems()) <= {second, merged}
    assert branches.problems()


def test_pieces_beside_a_whole_segment_have_to_equal_it(branches: Branches) -> None:
    made = branches.made
    whole = made.segment_key(1, 4)
    data = made.codec.decode(whole, made.store.get(whole))
    piece = keys.piece("000000010000000000000004", 0, 5000, "zst")
    made.put(piece, data[:5000])
    assert branches.verify().ok
    made.put(piece, data[:4999] + b"!")
    assert whole in branches.problems()


def test_pieces_that_are_merged_while_they_are_read(branches: Branches) -> None:
    made = branches.made
    first, second, _ = piece_keys(branches, 3, 8)
    parts = [made.codec.decode(key, made.store.get(key)) for key in (first, second)]
    name = keys.parse_piece(second)
    assert name is not None

    def merge(operation: str, key: str) -> None:
        if operation == "get" and key == first:
            made.store.on_call = None
            made.put(keys.piece(name.segment, 0, name.end, "zst"), b"".join(parts))
            made.store.delete([first, second])

    made.store.on_call = merge
    assert branches.verify().ok


def test_a_segment_that_arrives_while_others_are_read(branches: Branches) -> None:
    """Uploads end in any order: a later segment may have been listed before an earlier one was there."""
    key = branches.made.segment_key(1, 5)
    late = branches.made.store.get(key)
    branches.made.store.delete([key])
    catalog = read_catalog(branches.made.store, branches.made.codec)
    branches.made.store.put(key, late)
    backup = choose_backup(catalog, None)
    report = verify_backup(
        branches.made.store, branches.made.codec, catalog, backup, progress=SilentProgress()
    )  # fmt: skip
    assert report.ok
