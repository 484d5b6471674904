"""Expiry at work, on the twin of a store: order, faults at every step, locks, stops, and repositories that changed."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgbackup.core.health_facts import LastRun
from pgbackup.core.lsn import MIB, Lsn
from pgbackup.core.retention import RetentionPolicy
from pgbackup.engines.expire import objects
from pgbackup.engines.expire.expire import ExpiryReport, ExpiryRequest, look, measure, run_expiry
from pgbackup.errors import CorruptObject, DeleteRefused, StoreUnavailable
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.expiry_record import read_record
from pgbackup.repository.verification_note import write_verification
from pgbackup.storage.file import FileStore
from pgbackup.storage.memory import MemoryStore
from tests.made_backup import NOON, MadeRepository

DAY = 24 * 60
NOW = NOON + timedelta(days=4)
KEEP_TWO = RetentionPolicy(backups=2, window=timedelta(0))


class Store(MemoryStore):
    """Counts down to a failure, keeps what is locked, and notes the order of deletions."""

    def __init__(self) -> None:
        super().__init__(now=lambda: NOW)
        self.locked = ""
        self.fail_after: int | None = None
        self.full = False
        self.deleted: list[str] = []
        self.on_call = self._look

    def _look(self, operation: str, key: str) -> None:
        if operation == "put" and self.full and not self.deleted:
            raise StoreUnavailable("it is full")
        if operation != "delete":
            return
        if self.locked and self.locked in key:
            raise DeleteRefused("the store keeps it", keys=(key,))
        if self.fail_after is not None:
            if not self.fail_after:
                raise StoreUnavailable("it went away")
            self.fail_after -= 1
        self.deleted.append(key)


@pytest.fixture
def made() -> MadeRepository:
    """Four backups a day apart, in segments 10, 20, 30 and 40, WAL from 5 to 45, and marks."""
    made = MadeRepository(store=Store())
    made.claim()
    for day in range(4):
        start = 10 * (day + 1)
        made.backup(Lsn(start * MIB + 40), Lsn((start + 1) * MIB + 400), minutes=day * DAY, parts=1)
        made.store.put(keys.mark(NOON + timedelta(days=day), 1, Lsn((start + 2) * MIB)), b"")
    for number in range(5, 46):
        made.put(made.segment_key(1, number), b"WAL")
    made.put(f"{keys.WAL}{name(1, 10)[5:]}.00000028.backup.zst", b"label")
    made.put(f"{keys.WAL}{name(1, 3)[5:]}.partial/00000000-00000100.zst", b"piece")
    made.put(f"{keys.WAL}stranger", b"?")
    return made


def name(timeline: int, number: int) -> str:
    return keys.backup_name(timeline, Lsn(number * MIB), MIB)


def request(made: MadeRepository, policy: RetentionPolicy = KEEP_TWO, **more) -> ExpiryRequest:
    given = {"stop": threading.Event(), "may_run": lambda: True} | more
    return ExpiryRequest(made.store, made.codec, policy, UTC, **given)  # type: ignore[arg-type]


def names(made: MadeRepository) -> list[str]:
    return [b.name for b in read_catalog(made.store, made.codec).backups]


def segments(made: MadeRepository) -> list[int]:
    return list(read_catalog(made.store, made.codec).segments.get(1, ()))


def wal_keys(made: MadeRepository) -> Iterator[str]:
    return (info.key for info in made.store.list(keys.WAL))


def test_a_look_writes_nothing(made: MadeRepository) -> None:
    seen = look(request(made))
    assert [b.name for b in seen.plan.removed] == [name(1, 10), name(1, 20)]
    found = measure(request(made), seen)
    # Two backups with their seals, segments 5 to 29, a label and a piece.
    folders = sum(len(list(made.store.list(keys.backup_folder(name(1, n))))) for n in (10, 20))
    assert (found.objects, found.bytes > 0) == (folders + 2 + 25 + 2, True)
    assert made.store.calls["delete"] == 0
    assert read_record(made.store) is None


def test_what_a_verification_found_damaged_takes_the_place_of_no_other(made: MadeRepository) -> None:
    write_verification(made.store, LastRun(NOW, ok=True, damaged=dict.fromkeys([name(1, 30)])))
    report = run_expiry(request(made))
    assert report.backups == (name(1, 10),)
    assert names(made) == [name(1, 20), name(1, 30), name(1, 40)]


def test_what_was_found_damaged_stays_as_long_as_if_it_were_whole(made: MadeRepository) -> None:
    """It may be mended; and whoever can write a false record must not have backups removed by that."""
    found = (name(1, 10), name(1, 20))
    write_verification(made.store, LastRun(NOW, ok=True, damaged=dict.fromkeys(found)))
    keep_all = RetentionPolicy(backups=4, window=timedelta(0))
    assert run_expiry(request(made, keep_all)).backups == ()
    assert segments(made)[0] == 10
    in_window = RetentionPolicy(backups=1, window=timedelta(days=30))
    assert run_expiry(request(made, in_window)).backups == ()
    assert run_expiry(request(made)).backups == found


def test_nothing_goes_while_the_newest_was_found_damaged(made: MadeRepository) -> None:
    """The only one that is whole could be the one that goes."""
    write_verification(made.store, LastRun(NOW, ok=False, damaged=dict.fromkeys([name(1, 40)])))
    report = run_expiry(request(made, RetentionPolicy(backups=1, window=timedelta(0))))
    assert (
        f"{name(1, 40)}, cannot be restored: it, or what it builds on, was damaged when a verification last read it"
        in report.plan.refusal
    )
    assert len(names(made)) == 4


def test_seal_first_then_the_folder_then_wal(made: MadeRepository) -> None:
    report = run_expiry(request(made))
    assert report.backups == (name(1, 10), name(1, 20))
    assert (report.stopped, report.removed.retained) == ("", 0)
    assert names(made) == [name(1, 30), name(1, 40)]
    assert segments(made) == list(range(30, 46))
    deleted = made.store.deleted
    assert deleted[0] == keys.sentinel(name(1, 10))
    second = deleted.index(keys.sentinel(name(1, 20)))
    assert all(key.startswith(keys.backup_folder(name(1, 10))) for key in deleted[1:second])
    first_wal = next(i for i, key in enumerate(deleted) if key.startswith(keys.WAL))
    assert all(key.startswith(keys.BASEBACKUPS) for key in deleted[:first_wal])
    assert not list(made.store.list(keys.backup_folder(name(1, 10))))
    assert not [key for key in wal_keys(made) if ".backup" in key or ".partial" in key]
    assert f"{keys.WAL}stranger" in wal_keys(made)
    assert len(list(made.store.list(keys.MARKS))) == 2
    record = read_record(made.store)
    assert record is not None
    assert record.backups == {name(1, 30), name(1, 40)}
    assert not record.removing
    assert record.removed["backups"] == [name(1, 10), name(1, 20)]
    assert run_expiry(request(made)).removed.objects == 0


@pytest.mark.parametrize("in_files", [False, True])
def test_many_objects_go_part_by_part(
    made: MadeRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_files: bool
) -> None:
    monkeypatch.setattr(objects, "DELETE_BATCH", 2)
    monkeypatch.setattr(objects, "_LISTED", 3)
    if in_files:
        files = FileStore(tmp_path)
        for info in made.store.list():
            files.put(info.key, made.store.get(info.key))
        made = replace(made, store=files)
    asked = itertools.count()
    run_expiry(request(made, may_run=lambda: next(asked) >= 0))
    assert next(asked) > 20
    assert segments(made) == list(range(30, 46))
    assert not [key for key in wal_keys(made) if ".backup" in key or ".partial" in key]


def test_a_failure_at_every_step_harms_nobody_and_the_next_expiry_ends_it(made: MadeRepository) -> None:
    started = dict(made.store._objects)
    run_expiry(request(made))
    ended = {key for key in made.store._objects if key != keys.EXPIRY}
    for step in range(len(made.store.deleted)):
        made.store._objects = dict(started)
        made.store.fail_after = step
        with pytest.raises(StoreUnavailable):
            run_expiry(request(made))
        catalog = read_catalog(made.store, made.codec)
        assert [catalog.why_not_restorable(backup) for backup in catalog.backups] == [""] * len(catalog.backups)
        made.store.fail_after = None
        report = run_expiry(request(made))
        assert not report.plan.refusal
        assert {key for key in made.store._objects if key != keys.EXPIRY} == ended


def test_a_locked_seal_keeps_the_backup_and_its_wal(made: MadeRepository) -> None:
    made.store.locked = keys.sentinel(name(1, 20))
    report = run_expiry(request(made))
    assert report.backups == (name(1, 10),)
    assert (report.removed.retained, report.removed.first_retained) == (1, keys.sentinel(name(1, 20)))
    assert names(made) == [name(1, 20), name(1, 30), name(1, 40)]
    assert segments(made) == [20, 21, *range(30, 46)]
    catalog = read_catalog(made.store, made.codec)
    assert [catalog.why_not_restorable(backup) for backup in catalog.backups] == ["", "", ""]
    assert run_expiry(request(made)).removed.retained == 1
    made.store.locked = ""
    assert run_expiry(request(made)).backups == (name(1, 20),)
    assert segments(made) == list(range(30, 46))


def test_locked_objects_are_counted_and_passed_over(made: MadeRepository) -> None:
    made.store.locked = keys.WAL
    report = run_expiry(request(made))
    assert (report.removed.retained, report.stopped) == (27, "")
    assert names(made) == [name(1, 30), name(1, 40)]
    made.store.locked = ""
    assert run_expiry(request(made)).removed.objects == 27


def test_a_locked_folder_is_tried_again(made: MadeRepository) -> None:
    made.store.locked = f"{name(1, 10)}/tar"
    assert run_expiry(request(made)).removed.retained == 2
    record = read_record(made.store)
    assert record is not None
    assert record.removing == {name(1, 10)}
    made.store.locked = ""
    assert run_expiry(request(made)).removed.objects == 2
    assert not list(made.store.list(keys.backup_folder(name(1, 10))))


def test_the_wal_that_goes_is_written_down_before_it_goes(made: MadeRepository) -> None:
    """Of all expiries, in as few ranges as there are; garbage in the record excuses nothing."""
    made.store.fail_after = 4
    with pytest.raises(StoreUnavailable):
        run_expiry(request(made))
    assert segments(made) == list(range(5, 46))
    record = read_record(made.store)
    assert record is not None
    assert record.removed_wal.ranges == {1: [(0, 30)]}
    made.store.fail_after = None
    run_expiry(request(made))
    run_expiry(request(made, replace(KEEP_TWO, backups=1)))
    record = read_record(made.store)
    assert record is not None
    assert record.removed_wal.ranges == {1: [(0, 40)]}
    document = json.loads(record.encode()) | {"removed_wal": {"1": [[0, 40], [50], "x", [1, "2"]], "x": [[1, 2]]}}
    made.store.put(keys.EXPIRY, json.dumps(document).encode())
    assert read_record(made.store) == record


def test_a_whole_call_that_is_refused_ends(made: MadeRepository) -> None:
    made.store.fail_next("delete", DeleteRefused("the bucket's policy forbids it"), times=10**6)
    report = run_expiry(request(made))
    assert report.backups == ()
    assert report.removed.retained > 2
    assert len(names(made)) == 4
    assert segments(made) == list(range(5, 46))


def test_the_intent_of_a_sealed_backup_claims_nothing(made: MadeRepository) -> None:
    """Credentials that cannot delete leave every intent behind; somebody who can must be able to expire."""
    backups = read_catalog(made.store, made.codec).backups
    plan = look(request(made)).plan
    for backup in backups:
        made.store.put(keys.intent(backup.timeline, backup.start_lsn - backup.start_lsn % MIB), b"{}")
    assert look(request(made)).claimed == frozenset()
    assert look(request(made)).plan.same_removal(plan)


def test_a_stop_ends_it_between_batches(made: MadeRepository) -> None:
    stop = threading.Event()
    made.store.locked = ""
    before = made.store.on_call

    def stop_at_the_first(operation: str, key: str) -> None:
        before(operation, key)
        if operation == "delete":
            stop.set()

    made.store.on_call = stop_at_the_first
    report = run_expiry(request(made, stop=stop))
    assert report.stopped == "it was asked to stop"
    assert made.store.deleted == [keys.sentinel(name(1, 10))]
    made.store.on_call = before
    assert run_expiry(request(made)).stopped == ""
    assert not list(made.store.list(keys.backup_folder(name(1, 10))))


def test_without_the_lease_nothing_goes(made: MadeRepository) -> None:
    report = run_expiry(request(made, may_run=lambda: False))
    assert (report.stopped, report.removed.objects) == ("another process may hold the lease now", 0)
    assert read_record(made.store) is None


def test_another_plan_than_the_one_shown_is_not_carried_out(made: MadeRepository) -> None:
    shown = look(request(made))
    made.put(made.segment_key(1, 46), b"WAL")
    made.backup(Lsn(45 * MIB + 40), Lsn(46 * MIB + 400), minutes=4 * DAY - 30, parts=1)
    report = run_expiry(request(made), shown)
    assert report.stopped == "the repository has changed since the plan was made"
    assert made.store.calls["delete"] == 0


def test_new_wal_is_no_other_plan(made: MadeRepository) -> None:
    shown = look(request(made))
    made.put(made.segment_key(1, 46), b"WAL")
    assert run_expiry(request(made), shown).backups == (name(1, 10), name(1, 20))


def test_a_backup_under_way_keeps_its_wal(made: MadeRepository) -> None:
    made.store.put(keys.intent(1, 25 * MIB), b"cannot be read")
    run_expiry(request(made))
    assert segments(made) == list(range(25, 46))


def test_backups_that_vanished_stop_expiry_until_accepted(made: MadeRepository) -> None:
    run_expiry(request(made, RetentionPolicy(backups=3, window=timedelta(0))))
    made.store.delete([keys.sentinel(name(1, 20))])
    report = run_expiry(request(made))
    assert "backups are gone that expiry did not remove" in report.plan.refusal
    assert len(names(made)) == 2
    assert not run_expiry(request(made, RetentionPolicy(1, timedelta(0)), accept_missing=True)).plan.refusal
    assert names(made) == [name(1, 40)]


def test_a_damaged_record_is_said(made: MadeRepository) -> None:
    made.store.put(keys.EXPIRY, b"{}")
    with pytest.raises(CorruptObject, match="expiry"):
        look(request(made))
    assert not look(request(made, accept_missing=True)).plan.refusal


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"ok": true}', b'{"format": 1, "finished": 5, "damaged": {}}'])
def test_what_verifications_found_must_be_readable(made: MadeRepository, garbage: bytes) -> None:
    """It may say that the newest backup is damaged, and which one is the last that is whole."""
    made.store.put(keys.VERIFICATION, garbage)
    with pytest.raises(CorruptObject, match="verification") as failed:
        run_expiry(request(made))
    assert "verify --record" in failed.value.hint
    assert len(names(made)) == 4
    write_verification(made.store, LastRun(NOW, ok=True))
    assert run_expiry(request(made)).backups == (name(1, 10), name(1, 20))


def test_another_clusters_record_refuses(made: MadeRepository) -> None:
    document = {"format": 1, "when": datetime.now(UTC).isoformat(), "system_identifier": 5, "backups": []}
    made.store.put(keys.EXPIRY, json.dumps(document).encode())
    report: ExpiryReport = run_expiry(request(made))
    assert "several clusters" in report.plan.refusal


def test_a_newest_backup_whose_part_was_deleted_is_no_reason_to_remove_an_older_one(made: MadeRepository) -> None:
    """What the seal says is not enough: somebody deleted an object behind our back."""
    part = next(i.key for i in made.store.list(keys.tar_folder(name(1, 40))) if "/part_" in i.key)
    made.store.delete([part])
    report = run_expiry(request(made))
    assert "cannot be restored" in report.plan.refusal
    assert len(names(made)) == 4


def test_backups_that_lack_objects_fill_no_place_of_the_policy(made: MadeRepository) -> None:
    control = next(i.key for i in made.store.list(keys.tar_folder(name(1, 30))) if "/pg_control" in i.key)
    made.store.delete([control])
    run_expiry(request(made))
    assert name(1, 20) in names(made), "the second of two that can be restored"


# -- a store that is full ------------------------------------------------------------------------------------------


def test_a_full_store_is_made_room_in(made: MadeRepository) -> None:
    """A disk, or a quota: it takes nothing any more, not even the record of what is to go. Nobody else makes room."""
    made.store.full = True
    report = run_expiry(request(made))
    assert not report.stopped
    assert set(report.backups) == {name(1, 10), name(1, 20)}
    assert names(made) == [name(1, 30), name(1, 40)]
    assert made.store.deleted[0] == keys.sentinel(name(1, 10))
    record = read_record(made.store)
    assert record is not None
    assert (record.backups, record.removing) == ({name(1, 30), name(1, 40)}, frozenset())
    assert look(request(made)).plan.is_empty


def test_a_full_store_in_which_only_wal_goes(made: MadeRepository) -> None:
    run_expiry(request(made))
    for number in range(5, 10):
        made.put(made.segment_key(1, number), b"WAL")
    made.store.deleted.clear()
    made.store.full = True
    assert run_expiry(request(made)).removed.objects == 5


def test_a_full_store_of_which_nothing_may_go_is_told(made: MadeRepository) -> None:
    run_expiry(request(made))
    made.store.deleted.clear()
    made.store.full = True
    with pytest.raises(StoreUnavailable, match="full"):
        run_expiry(request(made))
