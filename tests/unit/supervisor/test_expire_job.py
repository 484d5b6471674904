"""The scheduled expiry: due by the repository, a refusal is a finding and no storm of retries."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.core.lsn import Lsn
from pgbackup.core.retention import RetentionPolicy
from pgbackup.engines.expire.expire import ExpiryRequest
from pgbackup.errors import BackupError, DeleteRefused, StoreUnavailable
from pgbackup.repository import keys
from pgbackup.supervisor.expire_job import ExpireJob
from tests.made_backup import NOON, MadeRepository
from tests.made_wal import MadeWal


@pytest.fixture
def made() -> MadeRepository:
    made = MadeRepository()
    made.claim()
    return made


def filled(made: MadeRepository) -> None:
    """One backup with its WAL."""
    wal = MadeWal()
    for _ in range(3):
        wal.filler(900_000)
    made.wal(wal)
    made.backup(Lsn(wal.start + 100), Lsn(wal.start + 1000))


def job(made: MadeRepository, *, leased: bool = True) -> ExpireJob:
    policy = RetentionPolicy(backups=1, window=timedelta(0))
    return ExpireJob(lambda: ExpiryRequest(made.store, made.codec, policy, UTC, threading.Event(), lambda: leased))


def test_the_first_expiry_is_due_a_period_after_the_first_backup(made: MadeRepository) -> None:
    assert job(made).last_done() is not None
    filled(made)
    assert job(made).last_done() == NOON


def test_an_expiry_by_hand_counts(made: MadeRepository) -> None:
    filled(made)
    first = job(made)
    assert first.work(threading.Event()) == ""
    assert first.last_run is not None
    assert first.last_run.ok, first.last_run
    last = job(made).last_done()
    assert last is not None
    assert datetime.now(UTC) - last < timedelta(minutes=1)


def test_without_the_lease_it_is_tried_again(made: MadeRepository) -> None:
    filled(made)
    with pytest.raises(BackupError, match="ended early"):
        job(made, leased=False).work(threading.Event())


def test_a_refusal_is_a_finding_and_no_error(made: MadeRepository) -> None:
    filled(made)
    made.store.delete([info.key for info in made.store.list(keys.WAL)])
    expire = job(made)
    assert "no backup can be restored" in expire.work(threading.Event())
    assert [finding.key for finding in expire.findings()] == ["expire:refused"]
    assert expire.last_run is not None
    assert not expire.last_run.ok


def test_a_store_that_keeps_everything_is_reported_and_no_failure(
    made: MadeRepository, caplog: pytest.LogCaptureFixture
) -> None:
    """Credentials without s3:DeleteObject: the plan is shown, nothing is removed, and it is not tried every minute."""
    filled(made)
    wal = MadeWal()
    made.backup(Lsn(wal.start + 2_200_000), Lsn(wal.start + 2_300_000), minutes=60)
    made.store.fail_next("delete", DeleteRefused("DeleteObjects was refused"), times=10**6)
    expire = job(made)
    assert expire.work(threading.Event()) == ""
    assert expire.last_run is not None
    assert expire.last_run.ok
    assert "the store keeps" in expire.last_run.summary
    assert "DeleteObjects was refused" in caplog.text
    assert expire.findings() == []


@pytest.mark.parametrize("restarted", [False, True])
def test_an_expiry_that_broke_off_is_not_done(made: MadeRepository, restarted: bool) -> None:
    """Else it was tried again at the next moment of its schedule, up to a week later, by nobody in between."""
    filled(made)
    wal = MadeWal()
    made.backup(Lsn(wal.start + 2_200_000), Lsn(wal.start + 2_300_000), minutes=60)
    expire = job(made)
    made.store.fail_next("delete", StoreUnavailable("gone"))
    with pytest.raises(StoreUnavailable):
        expire.work(threading.Event())
    assert (job(made) if restarted else expire).last_done() == NOON
    assert expire.work(threading.Event()) == ""
    last = (job(made) if restarted else expire).last_done()
    assert last is not None
    assert last > NOON


def test_one_that_had_to_stop_is_not_done(made: MadeRepository) -> None:
    filled(made)
    expire = job(made, leased=False)
    with pytest.raises(BackupError, match="ended early"):
        expire.work(threading.Event())
    assert expire.last_done() == NOON
