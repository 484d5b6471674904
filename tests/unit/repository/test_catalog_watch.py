"""A watch sees what a full reading sees, with one LIST a look while nothing moves, and notices what vanished."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbackup.core.catalog import Catalog
from pgbackup.core.known_gaps import KnownGap
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.wal_holes import holes
from pgbackup.errors import StoreUnavailable
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.catalog_watch import CatalogWatch
from pgbackup.repository.gap_ledger import acknowledge_gap, record_gap
from tests.made_backup import NOON, MadeRepository


def segment(number: int, timeline: int = 1) -> SegmentName:
    return SegmentName(timeline, number, 1 << 20)


def sealed(made: MadeRepository, number: int, timeline: int = 1, minute: int = 0) -> None:
    """Only the documents of a backup."""
    start, stop = Lsn((number << 20) + 40), Lsn((number << 20) + 400)
    documents = made.documents(start, stop, timeline=timeline, minutes=minute)
    name = keys.backup_name(timeline, start, 1 << 20)
    made.store.put(keys.metadata(name), documents.metadata())
    made.store.put(keys.sentinel(name), documents.sentinel())


@pytest.fixture
def made() -> MadeRepository:
    made = MadeRepository()
    made.claim()
    made.store.put(keys.wal(str(segment(3)), "zst"), b"x")
    return made


def test_what_is_new_is_seen_without_listing_everything(made: MadeRepository) -> None:
    watch = made.watched()
    for number in (4, 5):
        made.store.put(keys.wal(str(segment(number)), "zst"), b"x")
    made.store.put(keys.piece(str(segment(6)), 0, 100, "zst"), b"x")
    made.store.put(keys.mark(NOON, 1, Lsn(5 << 20)), b"")
    catalog, full = watch.look(60.0, moving=True)
    assert not full
    assert catalog == read_catalog(made.store, made.codec)


def test_a_segment_that_comes_after_later_ones_is_seen_at_the_next_look(made: MadeRepository) -> None:
    """Several are uploaded at once. In a large repository the walk comes by much later, and until then a hole would be
    told that is none, and a base backup taken because of it."""
    for number in range(4, 4000):
        if number not in (3960, 3998):
            made.store.put(keys.wal(str(segment(number)), "zst"), b"x")
    watch = made.watched()
    for look, number in enumerate((3998, 3960), start=1):
        made.store.put(keys.wal(str(segment(number)), "zst"), b"x")
        catalog, full = watch.look(60.0 * look, moving=True)
        assert not full
        assert catalog == read_catalog(made.store, made.codec)
    assert not holes(catalog)


def test_at_rest_a_look_costs_one_list_and_no_reading(made: MadeRepository) -> None:
    watch = made.watched()
    made.store.calls.clear()
    for look in range(1, 31):
        assert not watch.look(look * 60.0, moving=False)[1]
    assert made.store.calls == {"list": 30}


def test_at_rest_a_look_costs_one_list_where_there_is_much(made: MadeRepository) -> None:
    """More than a page: the walk and what changes take turns."""
    for number in range(4, 2000):
        made.store.put(keys.wal(str(segment(number)), "zst"), b"x")
    watch = made.watched()
    watch.look(1.0, moving=False)
    made.store.calls.clear()
    for look in range(2, 32):
        assert not watch.look(float(look), moving=False)[1]
    assert sum(made.store.calls.values()) == 30


def test_everything_is_listed_again_after_a_while(made: MadeRepository) -> None:
    watch = made.watched()
    assert not watch.look(3599.0, moving=True)[1]
    assert watch.look(3601.0, moving=True)[1]


@pytest.mark.parametrize("moving", [True, False])
def test_an_emptied_bucket_is_seen_at_the_next_look(made: MadeRepository, *, moving: bool) -> None:
    sealed(made, 3)
    for looks in range(3):
        watch = made.watched()
        for earlier in range(looks):
            watch.look(earlier + 1.0, moving=moving)
        kept = {info.key: made.store.get(info.key) for info in made.store.list()}
        made.store.delete(list(kept))
        catalog, full = watch.look(60.0, moving=moving)
        assert full
        assert not catalog.backups
        assert not catalog.segments
        for key, data in kept.items():
            made.store.put(key, data)


def test_lost_bookkeeping_is_named(made: MadeRepository) -> None:
    sealed(made, 3)
    watch = made.watched()
    assert watch.missing_bookkeeping == ()
    made.store.delete([keys.CLUSTER])
    for look in range(1, 4):
        watch.look(float(look), moving=False)
    assert watch.missing_bookkeeping == (keys.CLUSTER,)


def test_alerts_and_a_lease_from_before_the_first_byte_prove_nothing_missing(made: MadeRepository) -> None:
    for info in list(made.store.list()):
        made.store.delete([info.key])
    made.store.put(keys.ALERTS, b"{}")
    made.store.put(keys.LEASE, b"{}")
    made.store.put(keys.SEEN_BACKUPS, b"{}")
    watch = made.watched()
    assert watch.missing_bookkeeping == ()
    made.store.put(keys.STATUS, b"{}")
    watch.forget()
    watch.look(1.0, moving=False)
    assert watch.missing_bookkeeping == (keys.CLUSTER,)


@pytest.mark.parametrize("much", [False, True])
def test_a_mark_that_is_written_at_rest_is_seen(made: MadeRepository, *, much: bool) -> None:
    """They go on while nothing else is written, and say to which moment a restore can go."""
    for number in range(4, 2000 if much else 5):
        made.store.put(keys.wal(str(segment(number)), "zst"), b"x")
    watch = made.watched()
    watch.look(0.0, moving=False)
    for minute in range(3):
        made.store.put(keys.mark(NOON + timedelta(minutes=minute), 1, Lsn(5 << 20)), b"")
        for look in range(6 if much else 1):
            catalog, full = watch.look(1.0 + look, moving=False)
            assert not full
        assert [mark.moment for mark in catalog.marks] == [NOON + timedelta(minutes=m) for m in range(minute + 1)]


def test_a_failed_look_is_followed_by_a_full_one(made: MadeRepository) -> None:
    watch = made.watched()
    made.store.fail_next("list", StoreUnavailable("gone"))
    with pytest.raises(StoreUnavailable):
        watch.look(60.0, moving=True)
    assert watch.look(120.0, moving=True)[1]


def is_whole(made: MadeRepository, key: str) -> bool:
    return made.store.head(f"{key.partition('.')[0]}.zst") is not None


def what_counts(catalog: Catalog) -> Catalog:
    """Without the pieces of segments that are whole: they count for nothing, and are removed at some time; and without
    what a look at the objects of the newest backup shows (here only documents are made)."""
    backups = tuple(replace(backup, problem="") for backup in catalog.backups)
    return replace(
        catalog, backups=backups, tails={name: end for name, end in catalog.tails.items() if not catalog.has(name)}
    )


STEPS = st.sampled_from(["segment", "piece", "drop pieces", "drop newest", "backup", "drop backup", "history", "mark"])


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_every_look_agrees_with_a_full_reading(steps: list[str]) -> None:
    made = MadeRepository()
    made.claim()
    watch, number, timeline, marks = CatalogWatch(made.store, made.codec), 3, 1, 0
    for second, step in enumerate(steps):
        store = made.store
        if step == "segment":
            store.put(keys.wal(str(segment(number, timeline)), "zst"), b"x")
            number += 1
        elif step == "piece":
            store.put(keys.piece(str(segment(number, timeline)), 0, 100 + second, "zst"), b"x")
        elif step == "drop pieces":
            store.delete([i.key for i in store.list(keys.WAL) if ".partial/" in i.key and is_whole(made, i.key)])
        elif step == "drop newest":
            store.delete([i.key for i in store.list(keys.WAL) if ".partial/" not in i.key][-1:])
        elif step == "backup":
            sealed(made, number, timeline, second)
        elif step == "drop backup":
            store.delete([i.key for i in store.list(keys.BASEBACKUPS) if i.key.endswith(keys.SENTINEL_SUFFIX)][:1])
        elif step == "history":
            timeline += 1
            store.put(keys.wal(f"{timeline:08X}.history", ""), f"{timeline - 1}\t{Lsn(number << 20)}\tx\n".encode())
        else:
            marks += 1
            store.put(keys.mark(NOON + timedelta(seconds=marks), timeline, Lsn(number << 20)), b"")
        assert what_counts(watch.look(float(second), moving=True)[0]) == what_counts(read_catalog(store, made.codec))


# -- what vanished or was replaced somewhere in the middle -------------------------------------------------------


@pytest.fixture
def large() -> MadeRepository:
    """Three whole backups, WAL of several pages on two timelines, time marks, pieces."""
    made = MadeRepository()
    made.claim()
    for number in range(3, 1200):
        made.store.put(keys.wal(str(segment(number)), "zst"), b"x")
    made.put(keys.wal("00000002.history", "zst"), f"1\t{Lsn(1200 << 20)}\tx\n".encode())
    for number in range(1200, 2400):
        made.store.put(keys.wal(str(segment(number, 2)), "zst"), b"x")
    made.store.put(keys.piece(str(segment(2400, 2)), 0, 100, "zst"), b"x")
    for number, timeline in ((5, 1), (600, 1), (1800, 2)):
        made.backup(Lsn((number << 20) + 40), Lsn(((number + 1) << 20) + 400), timeline=timeline, minutes=number)
    for minute in range(50):
        made.store.put(keys.mark(NOON + timedelta(minutes=minute), 1, Lsn((20 + minute) << 20)), b"")
    return made


def looks_until_full(watch: CatalogWatch, *, moving: bool) -> int:
    for look in range(1, 40):
        if watch.look(100.0 + look, moving=moving)[1]:
            return look
    raise AssertionError("it was never seen")


@pytest.mark.parametrize("moving", [True, False])
def test_a_large_repository_that_rests_or_moves_is_not_listed_again_and_again(
    large: MadeRepository, *, moving: bool
) -> None:
    watch = large.watched()
    for look in range(1, 40):
        assert not watch.look(float(look), moving=moving)[1]
    assert watch.replaced == ()


@pytest.mark.parametrize("moving", [True, False])
@pytest.mark.parametrize(
    "lost",
    [
        keys.wal(str(segment(3)), "zst"),
        keys.wal(str(segment(700)), "zst"),
        keys.wal(str(segment(1199)), "zst"),
        keys.wal(str(segment(1200, 2)), "zst"),
        keys.wal(str(segment(2399, 2)), "zst"),
        "part_002",
        "pg_control",
        keys.CLUSTER,
    ],
)
def test_an_object_that_vanished_anywhere_is_missed(large: MadeRepository, lost: str, *, moving: bool) -> None:
    watch = large.watched()
    watch.look(1.0, moving=moving)
    gone = [info.key for info in large.store.list() if lost in info.key]
    large.store.delete(gone[:1])
    assert looks_until_full(watch, moving=moving) <= (2 if moving else 8)


@pytest.mark.parametrize("moving", [True, False])
def test_in_a_usual_repository_every_lost_object_is_missed_at_once(*, moving: bool) -> None:
    made = MadeRepository()
    made.claim()
    for number in range(3, 60):
        made.store.put(keys.wal(str(segment(number)), "zst"), b"x")
    made.store.put(keys.piece(str(segment(60)), 0, 100, "zst"), b"x")
    for number in (5, 30):
        made.backup(Lsn((number << 20) + 40), Lsn(((number + 1) << 20) + 400), minutes=number)
    watch = made.watched()
    for info in [*made.store.list(keys.BASEBACKUPS), *made.store.list(keys.WAL)]:
        if info.key.endswith("files_metadata.json"):
            continue  # nothing needs it
        assert not watch.look(1.0, moving=moving)[1]
        data = made.store.get(info.key)
        made.store.delete([info.key])
        catalog, full = watch.look(1.0, moving=moving)
        assert full or catalog == watch_of(made), info.key
        made.store.put(info.key, data)
        watch.forget()
        watch.look(1.0, moving=moving)


def watch_of(made: MadeRepository) -> Catalog:
    return CatalogWatch(made.store, made.codec).look(0.0, moving=True)[0]


def test_an_acknowledged_gap_is_seen_at_the_next_look(made: MadeRepository) -> None:
    gap = KnownGap(1, Lsn(5 << 20), Lsn(6 << 20), NOON, "lost")
    record_gap(made.store, gap)
    watch = made.watched()
    watch.look(1.0, moving=False)
    acknowledge_gap(made.store, gap, moment=NOON, by="me", comment="")
    catalog, full = watch.look(2.0, moving=False)
    assert full
    assert catalog.known_gaps[0].acknowledged == NOON
