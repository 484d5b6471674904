"""A watch sees what a full reading sees, with one LIST a look while nothing moves, and notices what vanished."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbackup.core.catalog import Catalog
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.errors import StoreUnavailable
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.catalog_watch import CatalogWatch
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


def watching(made: MadeRepository) -> CatalogWatch:
    watch = CatalogWatch(made.store, made.codec)
    watch.look(0.0, moving=True)
    return watch


def test_what_is_new_is_seen_without_listing_everything(made: MadeRepository) -> None:
    watch = watching(made)
    for number in (4, 5):
        made.store.put(keys.wal(str(segment(number)), "zst"), b"x")
    made.store.put(keys.piece(str(segment(6)), 0, 100, "zst"), b"x")
    made.store.put(keys.mark(NOON, 1, Lsn(5 << 20)), b"")
    catalog, full = watch.look(60.0, moving=True)
    assert not full
    assert catalog == read_catalog(made.store, made.codec)


def test_at_rest_a_look_costs_one_list_and_no_reading(made: MadeRepository) -> None:
    watch = watching(made)
    made.store.calls.clear()
    for look in range(1, 31):
        assert not watch.look(look * 60.0, moving=False)[1]
    assert made.store.calls == {"list": 10, "list_level": 20}


def test_everything_is_listed_again_after_a_while(made: MadeRepository) -> None:
    watch = watching(made)
    assert not watch.look(3599.0, moving=True)[1]
    assert watch.look(3601.0, moving=True)[1]


@pytest.mark.parametrize("moving", [True, False])
def test_an_emptied_bucket_is_seen_at_the_next_look(made: MadeRepository, *, moving: bool) -> None:
    sealed(made, 3)
    for looks in range(3):
        watch = watching(made)
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
    watch = watching(made)
    assert watch.missing_bookkeeping == ()
    made.store.delete([keys.CLUSTER])
    for look in range(1, 4):
        watch.look(float(look), moving=False)
    assert watch.missing_bookkeeping == (keys.CLUSTER,)


def test_a_failed_look_is_followed_by_a_full_one(made: MadeRepository) -> None:
    watch = watching(made)
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
