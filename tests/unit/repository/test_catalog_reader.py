"""From objects to a Catalog: what every kind of object counts for, and that nothing unreadable hides the rest."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from pgbackup.core.catalog import TimeMark
from pgbackup.core.lsn import MIB, Lsn, SegmentName
from pgbackup.core.wal_holes import holes
from pgbackup.errors import CorruptObject, StoreUnavailable
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import CatalogReader, read_catalog, read_for_restore
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.memory import MemoryStore
from tests.made_backup import NOON, ZSTD, MadeRepository
from tests.made_wal import SYSTEM

START, STOP = Lsn(3 * MIB + 40), Lsn(3 * MIB + 400)


@pytest.fixture
def made() -> MadeRepository:
    made = MadeRepository()
    made.claim()
    return made


def read(made: MadeRepository):
    return read_catalog(made.store, made.codec)


def put_segments(made: MadeRepository, timeline: int, *numbers: int, extension: str = "zst") -> None:
    for number in numbers:
        made.store.put(keys.wal(str(SegmentName(timeline, number, made.segment_bytes)), extension), b"x")


def put_pieces(made: MadeRepository, number: int, *ranges: tuple[int, int], timeline: int = 1) -> SegmentName:
    segment = SegmentName(timeline, number, made.segment_bytes)
    for first, end in ranges:
        made.store.put(keys.piece(str(segment), first, end, "zst"), b"x")
    return segment


def test_an_empty_repository() -> None:
    catalog = read_catalog(MemoryStore(), ZSTD)
    assert (catalog.backups, dict(catalog.segments), catalog.system_identifier) == ((), {}, None)
    assert catalog.segment_bytes == 16 * MIB


def test_whole_segments_under_any_extension_once(made: MadeRepository) -> None:
    put_segments(made, 1, 1, 2, 4)
    put_segments(made, 1, 2, 5, extension="lz4")
    put_segments(made, 1, 6, extension="")
    put_segments(made, 2, 0xFFF, 0x1000, 0x1001)
    catalog = read(made)
    assert {t: list(n) for t, n in catalog.segments.items()} == {1: [1, 2, 4, 5, 6], 2: [0xFFF, 0x1000, 0x1001]}
    assert catalog.has(SegmentName(1, 5, MIB))
    assert not catalog.has(SegmentName(1, 3, MIB))
    assert [(g.start // MIB, g.end // MIB) for g in holes(catalog)] == [(3, 4)]


@pytest.mark.parametrize("is_claimed", [True, False])
def test_wal_es_segments_have_the_size_that_others_say(is_claimed: bool) -> None:
    """Its documents do not say it, and 64 MiB read as 16 are the WAL of another time."""
    made = MadeRepository(segment_bytes=64 * MIB)
    if is_claimed:
        made.claim()
    else:
        made.backup(Lsn(9 * 64 * MIB + 40), Lsn(9 * 64 * MIB + 400))
    name = "base_000000010000000000000005_00000040"
    sentinel = {"wal_segment_backup_stop": "000000010000000000000006", "wal_segment_offset_backup_stop": "50000000"}
    made.store.put(keys.sentinel(name), json.dumps(sentinel).encode())
    put_segments(made, 1, 1, 5)
    catalog = read(made)
    found = catalog.backup(name)
    assert found is not None
    assert (found.start_lsn, found.stop_lsn) == (5 * 64 * MIB + 40, 6 * 64 * MIB + 50_000_000)
    assert catalog.missing(found.start_lsn, found.stop_lsn, catalog.history(1)) == [SegmentName(1, 6, 64 * MIB)]


def test_what_counts_for_nothing(made: MadeRepository) -> None:
    for name in (
        "000000010000000000000001.partial.zst", "000000010000000000000001_delta.zst", "000000010000000000000001.json",
        "00000001000000000000000a.zst", "000000010000000000000001.00000028.backup.zst", "00000001000000000000FFFF.zst",
        "readme.txt", "0000000100000000000001.zst", "00000001FFFFFFFF00000FFF.zst",
        "00000001FFFFFFFF00000FFF.partial/00000000-00000100.zst",
    ):  # fmt: skip
        made.store.put(keys.WAL + name, b"x")
    made.store.put(keys.WAL + "000000010000000000000007.zst", b"")
    catalog = read(made)
    assert (dict(catalog.segments), dict(catalog.tails)) == ({}, {})


def test_tails_are_the_unbroken_pieces_from_the_start(made: MadeRepository) -> None:
    whole = put_pieces(made, 5, (0, 100), (100, 300), (250, 400))
    torn = put_pieces(made, 6, (0, 100), (101, 300))
    overlapping = put_pieces(made, 7, (0, 500), (0, 100), (300, 600), (100, 200))
    headless = put_pieces(made, 8, (1, 100))
    too_long = put_pieces(made, 9, (0, MIB + 5))
    made.store.put(keys.pieces_folder(str(torn)) + "nonsense", b"x")
    assert dict(read(made).tails) == {whole: 400, torn: 100, overlapping: 600, headless: 0, too_long: MIB}


def test_pieces_of_a_segment_that_is_whole_too(made: MadeRepository) -> None:
    put_segments(made, 1, 5)
    segment = put_pieces(made, 5, (0, 100))
    catalog = read(made)
    assert catalog.has(segment)
    assert catalog.tails == {segment: 100}


@pytest.mark.parametrize("codec", [ZSTD, Codec(Compression("lz4"), bytes(32)), Codec(Compression("none"))])
def test_histories(codec: Codec) -> None:
    made = MadeRepository(codec)
    second = made.history(2, (1, Lsn(5 * MIB + 7)))
    third = made.history(3, (1, Lsn(5 * MIB + 7)), (2, Lsn(9 * MIB)))
    assert read(made).histories == {2: second, 3: third}


def test_a_damaged_history_does_not_hide_the_rest(made: MadeRepository, caplog: pytest.LogCaptureFixture) -> None:
    made.history(2, (1, Lsn(5)))
    made.store.put(keys.wal("00000003.history", "zst"), b"damaged")
    made.put(keys.wal("00000004.history", "zst"), b"not a line\n")
    with caplog.at_level(logging.WARNING):
        assert list(read(made).histories) == [2]
    assert "00000003.history.zst" in caplog.text
    assert "00000004.history.zst" in caplog.text


def test_a_history_that_is_damaged_under_one_extension_only(made: MadeRepository) -> None:
    made.store.put(keys.wal("00000002.history", "lz4"), b"damaged")
    made.history(2, (1, Lsn(5)))
    assert list(read(made).histories) == [2]


def test_backups_in_order_with_one_that_cannot_be_read(made: MadeRepository) -> None:
    newer = made.backup(Lsn(9 * MIB + 40), Lsn(9 * MIB + 400), minutes=60)
    older = made.backup(START, STOP)
    broken = "base_000000010000000000000006"
    made.store.put(keys.sentinel(broken), b"{")
    made.store.put(keys.sentinel("strange"), b"{}")
    catalog = read(made)
    assert [b.name for b in catalog.backups if not b.problem] == [older, newer]
    assert {b.name for b in catalog.backups if b.problem} == {broken, "strange"}
    assert catalog.system_identifier == SYSTEM


def test_a_folder_without_sentinel_is_no_backup(made: MadeRepository) -> None:
    name = made.backup(START, STOP)
    made.store.delete([keys.sentinel(name)])
    assert read(made).backups == ()


def test_a_sentinel_with_a_list_of_files_is_read_without_it(made: MadeRepository) -> None:
    """WAL-G before version 1 wrote it there."""
    name = made.backup(START, STOP)
    before = read(made).backup(name)
    document = json.loads(made.store.get(keys.sentinel(name)))
    document["UserData"]["pgbackup"] |= {"format": 1, "sha256": ""}
    files = {f"/base/5/{number}": {"IsSkipped": False, "IsIncremented": False} for number in range(40_000)}
    made.store.put(
        keys.sentinel(name), json.dumps({"Files": files, "TarFileSets": {"x": list(files)}} | document).encode()
    )
    assert replace(read(made).backup(name), modified=before.modified) == before


def test_a_huge_sentinel_is_not_read(made: MadeRepository) -> None:
    name = made.backup(START, STOP)
    document = json.loads(made.store.get(keys.sentinel(name)))
    made.store.put(keys.sentinel(name), json.dumps(document | {"More": ["x" * 1000] * 5000}).encode())
    assert "besides its lists of files" in read(made).backup(name).problem


def test_a_huge_metadata_json_or_history_is_not_read(made: MadeRepository, caplog: pytest.LogCaptureFixture) -> None:
    name = made.backup(START, STOP)
    before = read(made).backup(name)
    details = json.loads(made.store.get(keys.metadata(name)))
    made.store.put(keys.metadata(name), json.dumps(details | {"user_data": "x" * (5 << 20)}).encode())
    made.store.put(keys.wal("00000002.history", ""), b"# x\n" * (1 << 20))
    with caplog.at_level(logging.WARNING):
        catalog = read(made)
    assert replace(catalog.backup(name), permanent=False) == before
    assert catalog.backup(name).permanent, "nobody knows"
    assert catalog.histories == {}
    assert "metadata.json is damaged: it has more than 4194304 bytes" in caplog.text
    assert "00000002.history is damaged: it has more than 2097152 bytes" in caplog.text


@pytest.mark.parametrize("claimed", [True, False])
def test_the_segment_size_is_found(claimed: bool) -> None:
    """From cluster.json, else from what the backups prove."""
    made = MadeRepository(segment_bytes=64 * MIB)
    if claimed:
        made.claim()
    else:
        made.backup(Lsn(3 * 64 * MIB + 40), Lsn(3 * 64 * MIB + 80))
    put_segments(made, 1, 3, 0x41)
    catalog = read(made)
    assert catalog.segment_bytes == 64 * MIB
    assert list(catalog.segments[1]) == [3, 0x41]


def test_time_marks(made: MadeRepository) -> None:
    made.store.put(keys.mark(NOON, 1, 5 * MIB), b"")
    made.store.put(keys.mark(NOON + timedelta(minutes=1), 2, 6 * MIB), b"")
    made.store.put(keys.MARKS + "nonsense", b"")
    assert read(made).marks == (
        TimeMark(NOON, 1, Lsn(5 * MIB)), TimeMark(NOON + timedelta(minutes=1), 2, Lsn(6 * MIB)),
    )  # fmt: skip
    assert read_catalog(made.store, made.codec, with_marks=False).marks == ()


def test_a_store_that_does_not_answer_is_an_error(made: MadeRepository) -> None:
    made.history(2, (1, Lsn(5)))
    made.backup(START, STOP)
    for operation in ("get", "list", "list_level"):
        made.store.fail_next(operation, StoreUnavailable("no"))
        with pytest.raises(StoreUnavailable):
            read(made)


def test_a_backup_that_is_deleted_meanwhile(made: MadeRepository) -> None:
    name = made.backup(START, STOP)

    def delete(operation: str, key: str) -> None:
        if operation == "get" and key == keys.sentinel(name):
            made.store.on_call = None
            made.store.delete([key])

    made.store.on_call = delete
    assert read(made).backups == ()


def test_a_reader_that_is_asked_again_fetches_only_what_may_have_changed(made: MadeRepository) -> None:
    name = made.backup(START, STOP)
    made.history(2, (1, Lsn(5)))
    reader = CatalogReader(made.store, made.codec)
    first = reader.read()
    made.store.calls.clear()
    assert reader.read() == first
    assert made.store.calls["get"] == 1, "cluster.json"
    assert made.store.calls["open_read"] == 1, "metadata.json, where permanence may have changed"
    made.store.delete([keys.sentinel(name)])
    assert reader.read().backups == ()


@pytest.mark.parametrize("key", [keys.CLUSTER, keys.gap(1, 4 * MIB, 5 * MIB)])
def test_damaged_bookkeeping_keeps_nobody_from_restoring(made: MadeRepository, key: str) -> None:
    """Neither the cluster's document nor the ledger of gaps is needed for it; elsewhere they are not passed over."""
    made.backup(START, STOP)
    put_segments(made, 1, 3, 6)
    whole = read(made)
    made.store.put(key, b"{ damaged")
    with pytest.raises(CorruptObject):
        read(made)
    found = read_for_restore(made.store, made.codec)
    assert found == replace(whole, system_identifier=found.system_identifier)


def test_a_restore_is_told_which_backups_lack_objects(made: MadeRepository) -> None:
    name = made.backup(START, STOP)
    made.store.delete([keys.part(name, 1, "zst")])
    put_segments(made, 1, 3)
    (backup,) = read_for_restore(made.store, made.codec).backups
    assert "part 1 is missing" in backup.problem


def test_a_mark_of_no_day_that_there_is(made: MadeRepository) -> None:
    """Somebody's object with such a name hides nothing else."""
    made.store.put(keys.mark(NOON, 1, Lsn(5 * MIB)), b"")
    made.store.put(f"{keys.MARKS}20260230T250000.000000Z-00000001-0000000000000001", b"")
    assert read(made).marks == (TimeMark(NOON, 1, Lsn(5 * MIB)),)
