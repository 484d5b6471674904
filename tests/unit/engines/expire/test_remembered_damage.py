"""What verifications found damaged, as expiry remembers it: the record of verifications may be lost."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, timedelta

import pytest

from pgbackup.core.health_facts import LastRun
from pgbackup.core.lsn import MIB, Lsn
from pgbackup.core.retention import RetentionPolicy
from pgbackup.engines.expire.expire import ExpiryRequest, look, remember_damaged, run_expiry
from pgbackup.errors import StoreUnavailable
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.expiry_record import ExpiryRecord, read_record
from pgbackup.repository.verification_note import write_verification
from pgbackup.storage.memory import MemoryStore
from tests.made_backup import NOON, MadeRepository

NOW = NOON + timedelta(days=4)
KEEP_TWO = RetentionPolicy(backups=2, window=timedelta(0))


@pytest.fixture
def made() -> MadeRepository:
    """Four backups a day apart, in segments 10, 20, 30 and 40, and WAL from 5 to 45."""
    made = MadeRepository(store=MemoryStore(now=lambda: NOW))
    made.claim()
    for day in range(4):
        start = 10 * (day + 1)
        made.backup(Lsn(start * MIB + 40), Lsn((start + 1) * MIB + 400), minutes=day * 24 * 60, parts=1)
    for number in range(5, 46):
        made.put(made.segment_key(1, number), b"WAL")
    return made


def name(timeline: int, number: int) -> str:
    return keys.backup_name(timeline, Lsn(number * MIB), MIB)


def request(made: MadeRepository, policy: RetentionPolicy, *, may_run: bool = True) -> ExpiryRequest:
    return ExpiryRequest(made.store, made.codec, policy, UTC, threading.Event(), lambda: may_run)


def names(made: MadeRepository) -> list[str]:
    return [b.name for b in read_catalog(made.store, made.codec).backups]


def full(operation: str, key: str) -> None:
    if operation == "put":
        raise StoreUnavailable(f"no room for {key}")


@pytest.mark.parametrize("expired_before", [False, True])
def test_damage_that_was_found_outlives_the_record_of_it(made: MadeRepository, expired_before: bool) -> None:
    """Else a record that is lost, or written anew by the next reading, lets the last whole backup go."""
    if expired_before:
        run_expiry(request(made, RetentionPolicy(backups=4, window=timedelta(0))))
    before = read_record(made.store)
    whole, keep_one = name(1, 10), RetentionPolicy(backups=1, window=timedelta(0))
    found = dict.fromkeys(name(1, n) for n in (20, 30, 40))
    write_verification(made.store, LastRun(NOW, ok=False, damaged=found))
    assert run_expiry(request(made, keep_one)).plan.refusal
    record = read_record(made.store)
    assert record is not None
    assert record.damaged == set(found)
    assert before is None or replace(record, damaged=frozenset()) == before
    made.store.delete([keys.VERIFICATION])
    assert run_expiry(request(made, keep_one)).plan.refusal
    write_verification(made.store, LastRun(NOW, ok=True, whole={whole: NOW}))
    assert run_expiry(request(made, keep_one)).plan.refusal
    assert whole in names(made)
    write_verification(made.store, LastRun(NOW, ok=True, whole={name(1, 40): NOW}))
    assert run_expiry(request(made, keep_one)).backups == (whole, name(1, 20), name(1, 30))
    record = read_record(made.store)
    assert record is not None
    assert record.damaged == frozenset()


def test_an_expiry_that_removes_goes_on_remembering_damage(made: MadeRepository) -> None:
    write_verification(made.store, LastRun(NOW, ok=True, damaged=dict.fromkeys([name(1, 30)])))
    assert run_expiry(request(made, KEEP_TWO)).backups == (name(1, 10),)
    made.store.delete([keys.VERIFICATION])
    assert run_expiry(request(made, KEEP_TWO)).backups == ()
    assert name(1, 20) in names(made)


def test_what_was_found_damaged_is_not_written_by_whom_may_not_or_where_the_store_is_full(
    made: MadeRepository,
) -> None:
    write_verification(made.store, LastRun(NOW, ok=False, damaged=dict.fromkeys([name(1, 40)])))
    assert run_expiry(request(made, KEEP_TWO, may_run=False)).plan.refusal
    made.store.on_call = full
    assert run_expiry(request(made, KEEP_TWO)).plan.refusal
    assert read_record(made.store) is None


def test_what_another_expiry_wrote_meanwhile_stays(made: MadeRepository) -> None:
    write_verification(made.store, LastRun(NOW, ok=False, damaged=dict.fromkeys([name(1, 40)])))
    seen = look(request(made, KEEP_TWO))
    others = ExpiryRecord(NOW, None, frozenset(), removing=frozenset([name(1, 10)]))
    made.store.put(keys.EXPIRY, others.encode())
    remember_damaged(request(made, KEEP_TWO), seen)
    assert read_record(made.store) == others
