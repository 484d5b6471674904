"""Expiry in a real bucket: batches of deletions, and credentials that may not delete."""

from __future__ import annotations

import threading
from datetime import UTC, timedelta

import pytest

from pgbackup.core.lsn import MIB, Lsn
from pgbackup.core.retention import RetentionPolicy
from pgbackup.engines.expire.expire import ExpiryRequest, run_expiry
from pgbackup.errors import DeleteRefused, StoreDenied
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.storage.base import ObjectStore
from tests.fix_store import S3Server, open_s3
from tests.made_backup import MadeRepository


@pytest.fixture
def made(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> MadeRepository:
    made = MadeRepository(store=open_s3(s3_server, monkeypatch))
    made.claim()
    for day, start in enumerate((10, 20, 30)):
        made.backup(Lsn(start * MIB + 40), Lsn((start + 1) * MIB + 400), minutes=day * 1440, parts=1)
    for number in range(5, 35):
        made.put(made.segment_key(1, number), b"WAL")
    return made


def request(made: MadeRepository, store: ObjectStore) -> ExpiryRequest:
    policy = RetentionPolicy(backups=1, window=timedelta(0))
    return ExpiryRequest(store, made.codec, policy, UTC, threading.Event(), lambda: True)


def test_expiry_in_a_bucket(made: MadeRepository) -> None:
    report = run_expiry(request(made, made.store))
    assert (len(report.backups), report.stopped, report.removed.retained) == (2, "", 0)
    catalog = read_catalog(made.store, made.codec)
    assert [b.name for b in catalog.backups] == [keys.backup_name(1, Lsn(30 * MIB), MIB)]
    assert list(catalog.segments[1]) == list(range(30, 35))
    again = run_expiry(request(made, made.store))
    assert (again.plan.refusal, again.removed.objects) == ("", 0)


@pytest.mark.parametrize("count", [1, 3])
def test_who_may_not_delete_is_told_which_objects_stay(
    made: MadeRepository, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    wanted = [made.segment_key(1, number) for number in range(10, 10 + count)]
    reader = open_s3(s3_server.as_reader(), monkeypatch, made.store.url.rpartition("/")[2])
    with pytest.raises(DeleteRefused) as caught:
        reader.delete(wanted)
    assert set(caught.value.keys) <= set(wanted)
    before = len(list(made.store.list()))
    with pytest.raises(StoreDenied):
        run_expiry(request(made, reader))
    assert len(list(made.store.list())) == before
