"""Reading WAL out of a repository: names, checks, tails, and what wal-fetch makes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pgbackup.core.lsn import MIB, Lsn, SegmentName
from pgbackup.core.recovery_path import WalFile
from pgbackup.core.timeline import TimelineHistory, parse_history
from pgbackup.engines.restore.wal import FetchPlan
from pgbackup.engines.restore.wal_fetch import check_arguments, fetch
from pgbackup.engines.wal.read import WalReader
from pgbackup.errors import ConfigError, CorruptObject, NotInArchive, RestoreError, StoreUnavailable
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.memory import MemoryStore
from tests.made_wal import SYSTEM, MadeWal

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ZSTD = Codec(Compression("zstd", 1))
FIVE = SegmentName(1, 5, MIB)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def made(number: int = 5, *, timeline: int = 1) -> bytes:
    wal = MadeWal(number, timeline=timeline)
    wal.fill_to(0.5)
    wal.commit(number, NOON)
    wal.switch()
    return wal.segment(number)


def put(store: MemoryStore, name: str, data: bytes, codec: Codec = ZSTD) -> str:
    key = keys.wal(name, codec.extension)
    store.put(key, codec.encode(data))
    return key


def put_pieces(store: MemoryStore, segment: SegmentName, data: bytes, borders: list[tuple[int, int]]) -> None:
    for first, end in borders:
        store.put(keys.piece(str(segment), first, end, "zst"), ZSTD.encode(data[first:end]))


def reader(store: MemoryStore, codec: Codec = ZSTD, system: int | None = SYSTEM) -> WalReader:
    return WalReader(store, codec, system_identifier=system)


# -- whole segments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["zstd", "lz4", "none"])
@pytest.mark.parametrize("configured", ["zstd", "lz4", "none"])
def test_a_segment_is_found_whatever_wrote_it(store, written, configured):
    put(store, str(FIVE), made(), Codec(Compression(written, 1 if written == "zstd" else 0)))
    found = reader(store, Codec(Compression(configured, 1 if configured == "zstd" else 0)))
    assert b"".join(found.segment(FIVE)) == made()
    assert b"".join(found.named(str(FIVE))) == made()
    if written == configured:
        assert store.calls["list"] == 0


def test_the_legacy_name_with_a_trailing_dot(store):
    store.put(f"{keys.WAL}{FIVE}.", made())
    assert b"".join(reader(store).segment(FIVE)) == made()


def test_other_objects_with_the_same_beginning_are_not_taken(store):
    store.put(f"{keys.WAL}{FIVE}.json", b"{}")
    store.put(f"{keys.WAL}{FIVE}_delta.lz4", b"x")
    put_pieces(store, FIVE, made(), [(0, 8192)])
    with pytest.raises(NotInArchive):
        list(reader(store).segment(FIVE))
    assert not reader(store).is_there(str(FIVE))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (made()[:-1], "1048575 bytes instead of"),
        (made() + b"x", "bytes instead of"),
        (made(6), "holds the WAL at 0/600000 instead of 0/500000"),
        (b"", "0 bytes"),
        (bytes(MIB), "no WAL page header"),
        (made(timeline=2), "timeline is 2"),
    ],
)
def test_a_segment_that_is_not_what_its_key_says(store, data, problem):
    key = put(store, str(FIVE), data)
    with pytest.raises(CorruptObject, match=problem) as caught:
        list(reader(store).segment(FIVE))
    assert caught.value.key == key


def test_a_segment_of_another_cluster(store):
    put(store, str(FIVE), made())
    with pytest.raises(CorruptObject, match="cluster"):
        list(reader(store, system=SYSTEM + 1).segment(FIVE))


def test_a_flipped_bit_and_a_cut_object(store):
    key = put(store, str(FIVE), made())
    stored = store.get(key)
    for damaged in (stored[:-5], stored[:50] + bytes([stored[50] ^ 4]) + stored[51:]):
        store.put(key, damaged)
        with pytest.raises(CorruptObject) as caught:
            list(reader(store).segment(FIVE))
        assert caught.value.key == key


# -- tails ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("borders", "end"),
    [
        ([(0, 100_000)], 100_000),
        ([(0, 8192), (8192, 20_000), (20_000, 20_008)], 20_008),
        ([(0, 8192), (8192, 20_000), (30_000, 40_000)], 20_000),
        ([(0, 8192), (0, 20_000), (8192, 20_000)], 20_000),
        ([(0, 8192), (4096, 20_000), (16_000, 24_000)], 24_000),
    ],
)
def test_a_tail_is_the_unbroken_cover_of_its_pieces(store, borders, end):
    put_pieces(store, FIVE, made(), borders)
    assert b"".join(reader(store).tail(FIVE)) == made()[:end]


def test_pieces_that_are_merged_while_they_are_read(store):
    """Reproduced by a stream with an interval of 0: the listed pieces were merged before they were fetched."""
    put_pieces(store, FIVE, made(), [(0, 8192), (8192, 20_000), (20_000, 50_000)])

    def merge(operation: str, key: str) -> None:
        if operation == "get" and "00002000-" in key:
            store.on_call = None
            put_pieces(store, FIVE, made(), [(0, 50_000)])
            store.delete([i.key for i in store.list(keys.pieces_folder(str(FIVE))) if "00000000-0000C350" not in i.key])

    store.on_call = merge
    assert b"".join(reader(store).tail(FIVE)) == made()[:50_000]


def test_pieces_that_become_the_whole_segment_while_they_are_read(store):
    put_pieces(store, FIVE, made(), [(0, 8192), (8192, 20_000)])

    def complete(operation: str, key: str) -> None:
        if operation == "get" and "00002000-" in key:
            store.on_call = None
            put(store, str(FIVE), made())
            store.delete([i.key for i in store.list(keys.pieces_folder(str(FIVE)))])

    store.on_call = complete
    assert b"".join(reader(store).tail(FIVE)) == made()


def test_pieces_that_are_gone_for_good_are_missed(store):
    put_pieces(store, FIVE, made(), [(0, 8192), (8192, 20_000)])

    def remove(operation: str, key: str) -> None:
        if operation == "get" and "00002000-" in key:
            store.delete([i.key for i in store.list(keys.pieces_folder(str(FIVE)))])

    store.on_call = remove
    with pytest.raises(NotInArchive):
        list(reader(store).planned(WalFile(FIVE, "tail", 20_000)))


def test_a_tail_without_its_beginning_is_none(store):
    put_pieces(store, FIVE, made(), [(8192, 20_000)])
    with pytest.raises(NotInArchive):
        list(reader(store).tail(FIVE))


def test_pieces_of_two_branches_are_refused(store):
    put_pieces(store, FIVE, made(), [(0, 20_000)])
    other = bytearray(made())
    other[18_000] ^= 1
    put_pieces(store, FIVE, bytes(other), [(16_000, 24_000)])
    with pytest.raises(CorruptObject, match="are others than in"):
        list(reader(store).tail(FIVE))
    with pytest.raises(CorruptObject, match="are others than in"):
        list(reader(store).planned(WalFile(FIVE, "tail", 10_000)))


def test_pages_come_in_whole_pages(store):
    put_pieces(store, FIVE, made(), [(0, 8200), (8200, 100_000)])
    file = WalFile(FIVE, "tail", 100_000)
    blocks = list(reader(store).pages(file, block_bytes=10_000))
    assert all(offset % 8192 == 0 for offset, _ in blocks)
    assert b"".join(block for _, block in blocks) == made()[:100_000]


def test_a_planned_tail_that_became_a_whole_segment(store):
    put(store, str(FIVE), made())
    assert b"".join(reader(store).planned(WalFile(FIVE, "tail", 50_000))) == made()[:50_000]


# -- wal-fetch --------------------------------------------------------------------------------------------------------


def test_fetch_writes_the_segment_and_nothing_else(store, tmp_path):
    put(store, str(FIVE), made())
    fetch(reader(store), str(FIVE), tmp_path / "RECOVERYXLOG")
    assert (tmp_path / "RECOVERYXLOG").read_bytes() == made()
    assert (tmp_path / "RECOVERYXLOG").stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 1


def test_fetch_of_what_is_not_there(store, tmp_path):
    for name in (str(FIVE), "00000002.history", f"{FIVE}.00000028.backup"):
        with pytest.raises(NotInArchive) as caught:
            fetch(reader(store), name, tmp_path / "x")
        assert caught.value.exit_code == 74
    assert not list(tmp_path.iterdir())


def test_plain_fetch_never_serves_a_tail(store, tmp_path):
    put_pieces(store, FIVE, made(), [(0, MIB)])
    with pytest.raises(NotInArchive):
        fetch(reader(store), str(FIVE), tmp_path / "x")


def test_fetch_leaves_nothing_of_a_damaged_segment(store, tmp_path):
    put(store, str(FIVE), made()[:-8192])
    with pytest.raises(CorruptObject):
        fetch(reader(store), str(FIVE), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_store_that_fails_is_not_an_absence(store, tmp_path):
    store.fail_next("open_read", StoreUnavailable("no answer"))
    with pytest.raises(StoreUnavailable):
        fetch(reader(store), str(FIVE), tmp_path / "x")


def test_fetch_of_history_files(store, tmp_path):
    put(store, "00000002.history", b"1\t0/5080000\tno recovery target specified\n")
    fetch(reader(store), "00000002.history", tmp_path / "h")
    assert (tmp_path / "h").read_text().startswith("1\t0/5080000")


@pytest.mark.parametrize("name", ["../../etc/passwd", "x", "0" * 23, f"{FIVE}/x", "", "00000001.history.lz4"])
def test_names_that_are_none_of_wal_files(name, tmp_path):
    with pytest.raises(ConfigError):
        check_arguments(name, tmp_path / "x")


def test_a_destination_that_exists_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(ConfigError, match="exists already"):
        check_arguments(str(FIVE), tmp_path / "x")


# -- wal-fetch under a restore -----------------------------------------------------------------------------------------


def plan(last: WalFile | None, end: int, history: TimelineHistory | None = None) -> FetchPlan:
    return FetchPlan(history or TimelineHistory(1), MIB, SYSTEM, Lsn(end), last)


def test_the_planned_tail_is_served_zero_padded(store, tmp_path):
    put_pieces(store, FIVE, made(), [(0, 20_000), (20_000, 30_000)])
    fetch(reader(store), str(FIVE), tmp_path / "x", plan(WalFile(FIVE, "tail", 20_000), FIVE.start + 20_000))
    assert (tmp_path / "x").read_bytes() == made()[:20_000] + bytes(MIB - 20_000)


def test_a_tail_that_has_shrunk_is_refused(store, tmp_path):
    put_pieces(store, FIVE, made(), [(0, 10_000)])
    with pytest.raises(CorruptObject, match="10000 bytes of it are there, 20000 were planned"):
        fetch(reader(store), str(FIVE), tmp_path / "x", plan(WalFile(FIVE, "tail", 20_000), FIVE.start + 20_000))
    assert not list(tmp_path.iterdir())


def test_a_segment_missing_before_the_planned_end_is_not_an_absence(store, tmp_path):
    with pytest.raises(RestoreError, match="is gone now") as caught:
        fetch(reader(store), str(FIVE), tmp_path / "x", plan(None, FIVE.end))
    assert caught.value.exit_code != 74
    with pytest.raises(NotInArchive):
        fetch(reader(store), str(FIVE.next()), tmp_path / "x", plan(None, FIVE.end))


def test_a_segment_beside_the_path_is_not_served(store, tmp_path):
    """Timeline 2 left in segment 5: its files count from there on, although the parent's are in the archive."""
    history = parse_history(2, f"1\t{Lsn(FIVE.start + 500_000)}\tpromoted\n")
    put(store, str(FIVE), made())
    with pytest.raises(NotInArchive, match="not on the path"):
        fetch(reader(store), str(FIVE), tmp_path / "x", plan(None, FIVE.end, history))


def test_the_parents_segment_is_cut_at_the_fork(store, tmp_path):
    history = parse_history(2, f"1\t{Lsn(FIVE.start + 500_000)}\tpromoted\n")
    put(store, str(FIVE), made())
    cut = plan(WalFile(FIVE, "cut", 500_000), FIVE.start + 500_000, history)
    with pytest.raises(NotInArchive):
        fetch(reader(store), str(SegmentName(2, 5, MIB)), tmp_path / "child", cut)
    fetch(reader(store), str(FIVE), tmp_path / "x", cut)
    assert (tmp_path / "x").read_bytes() == made()[:500_000] + bytes(MIB - 500_000)


def test_the_plan_survives_being_written(tmp_path):
    import json

    history = parse_history(2, "1\t0/580000\tpromoted\n")
    written = plan(WalFile(FIVE, "cut", 500_000), FIVE.start + 500_000, history)
    path = Path(tmp_path / "recovery.json")
    path.write_text(json.dumps(written.document()))
    read = FetchPlan.read(path)
    assert read.last == written.last
    assert read.end == written.end
    assert read.history.path() == history.path()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"ancestors": 1}', "null"])
def test_a_plan_that_cannot_be_read(tmp_path, text):
    (tmp_path / "recovery.json").write_text(text)
    with pytest.raises(RestoreError):
        FetchPlan.read(tmp_path / "recovery.json")
