"""``pgbackup expire`` over a repository in memory: the plan it prints, what --apply does, and refusals."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, timedelta

import pytest
from click.testing import CliRunner, Result

from pgbackup.cli.cmd_expire import command
from pgbackup.core.health_facts import LastRun
from pgbackup.core.lsn import MIB, Lsn
from pgbackup.core.retention import RetentionPolicy
from pgbackup.engines.expire.expire import ExpiryRequest
from pgbackup.errors import CheckFailed
from pgbackup.repository import keys
from pgbackup.repository.expiry_record import read_record
from pgbackup.repository.verification_note import write_verification
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.memory import MemoryStore
from pgbackup.storage.readonly import ReadOnlyStore
from tests.made_backup import NOON, MadeRepository

NOW = NOON + timedelta(days=3, hours=1)
OLD, NEW = "base_00000001000000000000000A", "base_000000010000000000000014"


class FakeApp:
    """Opens the made repository, read-only unless it is to be changed."""

    def __init__(self, made: MadeRepository) -> None:
        self.made = made
        self.may_run = True

    @contextmanager
    def open_expiry(self, *, apply: bool, accept_missing: bool) -> Iterator[ExpiryRequest]:
        store: ObjectStore = self.made.store if apply else ReadOnlyStore(self.made.store)
        policy = RetentionPolicy(backups=1, window=timedelta(days=1))
        yield ExpiryRequest(
            store, self.made.codec, policy, UTC, threading.Event(), lambda: self.may_run, accept_missing
        )


@pytest.fixture
def app() -> FakeApp:
    made = MadeRepository(store=MemoryStore(now=lambda: NOW))
    made.claim()
    made.backup(Lsn(10 * MIB + 40), Lsn(11 * MIB + 400))
    made.backup(Lsn(20 * MIB + 40), Lsn(21 * MIB + 400), minutes=24 * 60)
    for number in range(8, 23):
        made.put(made.segment_key(1, number), b"WAL")
    return FakeApp(made)


def run(app: FakeApp, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, obj=app)


def test_the_plan(app: FakeApp) -> None:
    result = run(app)
    lines = result.output.splitlines()
    assert result.exit_code == 0, result.output
    assert lines[1].startswith(f"{OLD}  2026-03-01 12:00:00+00:00")
    assert lines[1].endswith("B  remove  nothing needs it")
    assert lines[2].endswith("keep    newest restorable, the newest, needed for the window of 1 d")
    assert lines[3] == (
        "  WAL of timeline 1: remove 000000010000000000000008 to 000000010000000000000013, 12 segments, 12.0 MiB before"
        f" compression; it ends at: {NEW} starts there"
    )
    assert lines[4].startswith("to remove: ")
    assert lines[5:] == ["nothing was removed; --apply removes"]
    assert app.made.store.head(keys.sentinel(OLD)) is not None


def test_apply(app: FakeApp) -> None:
    result = run(app, "--apply")
    assert result.exit_code == 0, result.output
    assert "removed: 1 backup, " in result.output
    assert app.made.store.head(keys.sentinel(OLD)) is None
    assert "nothing to remove" in run(app).output


def test_what_an_interrupted_expiry_left_is_named(app: FakeApp) -> None:
    store = app.made.store
    left = [info for info in store.list(keys.backup_folder(OLD)) if info.key.endswith("tar.zst")]
    data = store.get(left[0].key)
    run(app, "--apply")
    record = json.loads(store.get(keys.EXPIRY))
    store.put(keys.EXPIRY, json.dumps(record | {"removing": [OLD]}).encode())
    store.put(left[0].key, data)
    lines = run(app).output.splitlines()
    assert lines[-3:-1] == [f"  what an interrupted expiry left of {OLD}", f"to remove: 1 object, {len(data)} B"]
    assert "removed: 0 backups, 1 object" in run(app, "--apply").output
    assert not list(store.list(keys.backup_folder(OLD)))


def test_json(app: FakeApp) -> None:
    document = json.loads(run(app, "--json").stdout)
    assert [(b["name"], b["keep"]) for b in document["backups"]] == [(OLD, False), (NEW, True)]
    assert document["wal"][0]["segments"] == 12
    assert (document["applied"], document["result"]) == (False, None)
    document = json.loads(run(app, "--apply", "--json").stdout)
    assert document["result"]["backups"] == [OLD]
    assert document["result"]["retained"] == {"objects": 0, "first": None, "reason": None}


def test_a_refusal_is_a_failed_check(app: FakeApp) -> None:
    app.made.store.delete([app.made.segment_key(1, 20)])
    result = run(app, "--apply")
    assert isinstance(result.exception, CheckFailed)
    assert f"the newest backup, {NEW}, cannot be restored" in result.exception.message
    assert result.exception.hint
    assert "remove" not in result.output
    assert app.made.store.head(keys.sentinel(OLD)) is not None


def test_a_refusal_for_damage_is_not_forgotten_with_the_record_of_it(app: FakeApp) -> None:
    write_verification(app.made.store, LastRun(NOW, ok=False, damaged={NEW: NOW}))
    assert isinstance(run(app).exception, CheckFailed)
    assert read_record(app.made.store) is None
    assert isinstance(run(app, "--apply").exception, CheckFailed)
    app.made.store.delete([keys.VERIFICATION])
    assert isinstance(run(app, "--apply").exception, CheckFailed)
    assert app.made.store.head(keys.sentinel(OLD)) is not None


def test_an_end_before_the_end_is_a_failed_check(app: FakeApp) -> None:
    app.may_run = False
    result = run(app, "--apply")
    assert isinstance(result.exception, CheckFailed)
    assert "lease" in result.exception.message
    assert app.made.store.head(keys.sentinel(OLD)) is not None
