"""``pgbackup delete`` in both dialects, over a repository in memory: what it plans, refuses and removes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, timedelta

import pytest
from click.testing import CliRunner, Result

from pgbackup.cli.cmd_delete import command
from pgbackup.core.lsn import MIB, Lsn
from pgbackup.core.retention import RetentionPolicy
from pgbackup.engines.expire.expire import ExpiryRequest
from pgbackup.engines.presence.lease import Lease
from pgbackup.errors import CheckFailed, DeleteRefused
from pgbackup.repository import keys
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.memory import MemoryStore
from pgbackup.storage.readonly import ReadOnlyStore
from tests.made_backup import NOON, MadeRepository

NOW = NOON + timedelta(days=30)
STARTS = (10, 20, 30, 40)


def name(number: int) -> str:
    return f"base_0000000100000000000000{number:02X}"


class FakeApp:
    """Opens the made repository, read-only unless it is to be changed, under a policy that would keep everything."""

    def __init__(self, made: MadeRepository, *, min_restorable: int = 1) -> None:
        self.made = made
        self.min_restorable = min_restorable

    @contextmanager
    def open_expiry(self, *, apply: bool, accept_missing: bool) -> Iterator[ExpiryRequest]:
        store: ObjectStore = self.made.store if apply else ReadOnlyStore(self.made.store)
        policy = RetentionPolicy(backups=100, window=timedelta(days=100), min_restorable=self.min_restorable)
        yield ExpiryRequest(store, self.made.codec, policy, UTC, threading.Event(), lambda: True, accept_missing)


@pytest.fixture
def app() -> FakeApp:
    """Four backups, a day apart, and all WAL from before the first one on."""
    made = MadeRepository(store=MemoryStore(now=lambda: NOW))
    made.claim()
    for day, start in enumerate(STARTS):
        made.backup(Lsn(start * MIB + 40), Lsn((start + 1) * MIB + 400), minutes=day * 24 * 60)
    for number in range(8, 45):
        made.put(made.segment_key(1, number), b"WAL")
    return FakeApp(made)


def run(app: FakeApp, *arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(command, arguments, obj=app)
    got = result.exception.exit_code if isinstance(result.exception, CheckFailed) else result.exit_code
    assert got == exit_code, f"{result.output}\n{result.exception}"
    return result


def left(app: FakeApp) -> list[str]:
    infos, _ = app.made.store.list_level(keys.BASEBACKUPS)
    return [info.key.removeprefix(keys.BASEBACKUPS).removesuffix(keys.SENTINEL_SUFFIX) for info in infos]


def segments(app: FakeApp) -> list[int]:
    return sorted({int(info.key[len(keys.WAL) + 16 :][:8], 16) for info in app.made.store.list(keys.WAL)})


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["retain", "2"], STARTS[2:]),
        (["retain", "FULL", "1"], STARTS[3:]),
        (["retain", "FIND_FULL", "3"], STARTS[1:]),
        (["before", name(30)], STARTS[2:]),
        (["before", "00000001000000000000001E"], STARTS[2:]),
        (["before", "FIND_FULL", name(20)], STARTS[1:]),
        (["before", "2026-03-02T12:00:00Z"], STARTS[1:]),
        (["retain", "1", "--after", name(20)], STARTS[1:]),
        (["retain", "3", "--after", name(40)], STARTS[1:]),
        (["retain", "1", "--after", "2026-03-03T00:00:00Z"], STARTS[2:]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_what_is_asked_for_goes_and_nothing_else(app: FakeApp, words: list[str], kept: tuple[int, ...]) -> None:
    """First the dry run, then in the order of wal-g (--confirm last)."""
    before = list(app.made.store.list())
    dry = run(app, *words)
    assert "nothing was removed; --confirm removes" in dry.output
    assert list(app.made.store.list()) == before
    run(app, *words, "--confirm")
    assert left(app) == [name(start) for start in kept]
    assert segments(app) == list(range(kept[0], 45)), "WAL from the segment of the oldest backup on"


def test_the_dialect_of_wal_e(app: FakeApp) -> None:
    run(app, "--confirm", "-n", "retain", "2")
    assert len(left(app)) == 4, "-n is a dry run whatever else is said"
    run(app, "--confirm", "retain", "2", "--use-sentinel-time", "--target-storage", "default")
    assert left(app) == [name(30), name(40)]


def test_too_few_to_remove_any_is_no_error(app: FakeApp) -> None:
    result = run(app, "retain", "5", "--confirm")
    assert "No backup found for deletion" in result.output
    assert run(app, "before", "2030-01-01T00:00:00Z", exit_code=2).exit_code == 2, "in the future"
    assert len(left(app)) == 4
    assert segments(app)[0] == 8, "nor any WAL"


def test_permanent_backups_stay_with_their_wal(app: FakeApp) -> None:
    permanent = replace(app.made.documents(Lsn(10 * MIB + 40), Lsn(11 * MIB + 400)), permanent=True)
    app.made.store.put(keys.metadata(name(10)), permanent.metadata())
    run(app, "retain", "1", "--confirm")
    assert left(app) == [name(10), name(40)]
    assert segments(app) == [10, 11, *range(40, 45)]


def test_what_cannot_be_restored_does_not_count(app: FakeApp) -> None:
    """Two are asked for, so two that can be restored stay."""
    app.made.store.delete([app.made.segment_key(1, 30)])
    run(app, "retain", "2", "--confirm")
    assert left(app) == [name(20), name(30), name(40)]
    result = run(app, "before", name(30), exit_code=1)
    assert "cannot be restored: WAL segment 00000001000000000000001E is missing" in str(result.exception)


def test_the_guards_of_expiry_count(app: FakeApp) -> None:
    app.made.store.delete([app.made.segment_key(1, 40)])
    result = run(app, "retain", "1", "--confirm", exit_code=1)
    assert f"the newest backup, {name(40)}, cannot be restored" in str(result.exception)
    assert len(left(app)) == 4


def test_as_many_stay_as_must(app: FakeApp) -> None:
    app.min_restorable = 2
    assert "at least 2 must be" in str(run(app, "retain", "1", "--confirm", exit_code=1).exception)
    assert len(left(app)) == 4


@pytest.mark.parametrize(
    "words",
    [
        ["retain"], ["retain", "0"],
        ["retain", "9" * 5000], ["retain", "\u0663"], ["retain", "x"], ["retain", "-1"],
        ["before"], ["before", "FULL", name(20)],
        ["before", "yesterday-ish"], ["everything", "NOW"], ["sometimes"], ["target", name(20)], ["garbage"],
        ["retain", "1", "--target-user-data", "{}"], ["retain", "1", "--target-storage", "other"],
        ["before", name(20), "--after", name(30)],
    ],
    ids=lambda value: " ".join(map(str, value)),
)  # fmt: skip
def test_usage_errors(app: FakeApp, words: list[str]) -> None:
    assert "Usage:" in run(app, *words, "--confirm", exit_code=2).output
    assert len(left(app)) == 4


def test_an_unknown_name(app: FakeApp) -> None:
    assert "there is no backup base_X" in str(run(app, "before", "base_X", "--confirm", exit_code=1).exception)


@pytest.mark.parametrize(
    ("number", "kept"), [(9, STARTS), (10, STARTS), (15, STARTS), (20, STARTS[1:]), (39, STARTS[2:]), (99, STARTS[3:])]
)
def test_before_a_segment_in_which_no_backup_starts(app: FakeApp, number: int, kept: tuple[int, ...]) -> None:
    """WAL-E takes any segment; what follows it can be restored only from the last backup before it."""
    result = run(app, "--confirm", "before", name(number).removeprefix("base_"))
    assert left(app) == [name(start) for start in kept]
    assert segments(app)[0] == (8 if number < 10 else kept[0])
    if number == 15:
        assert f"no backup starts in 00000001000000000000000F: {name(10)} stays" in result.output
    if number == 9:
        assert "No backup found for deletion" in result.output


def test_a_segment_of_an_older_timeline_keeps_no_backup_of_a_later_one_for_it(app: FakeApp) -> None:
    app.made.backup(Lsn(42 * MIB + 40), Lsn(43 * MIB + 400), timeline=2, minutes=9 * 24 * 60)
    result = run(app, "before", "000000010000000000000050", exit_code=1)
    assert f"{name(40)} stays" in result.output


def test_retain_after_a_segment_before_all_backups_removes_nothing(app: FakeApp) -> None:
    result = run(app, "retain", "1", "--after", "000000010000000000000001", "--confirm")
    assert "No backup found for deletion" in result.output
    assert len(left(app)) == 4


def test_json(app: FakeApp) -> None:
    document = json.loads(run(app, "retain", "3", "--json").stdout)
    assert [(b["name"], b["keep"]) for b in document["backups"]] == [(name(s), s > 10) for s in STARTS]
    assert document["applied"] is False
    assert json.loads(run(app, "retain", "3", "--json", "--confirm").stdout)["result"]["backups"] == [name(10)]
    assert json.loads(run(app, "everything", "--json", "FORCE").stdout)["to_remove"]["restorable"] == [
        name(s) for s in STARTS[1:]
    ]


def test_everything_needs_force(app: FakeApp) -> None:
    result = run(app, "everything", "--confirm", exit_code=1)
    assert f"{name(40)} can be restored, and would be gone" in str(result.exception)
    assert len(left(app)) == 4
    assert "nothing was removed; --confirm removes" in run(app, "everything", "FORCE").output
    app.made.store.put("somebody/elses", b"")
    run(app, "everything", "FORCE", "--confirm")
    assert [info.key for info in app.made.store.list()] == ["somebody/elses"]


def test_everything_is_refused_while_pgbackup_runs(app: FakeApp) -> None:
    Lease(app.made.store, writer="sidecar", host="elsewhere").acquire(7, 1)
    result = run(app, "everything", "FORCE", "--confirm", exit_code=1)
    assert "pgbackup runs for this repository on host elsewhere" in str(result.exception)
    assert len(left(app)) == 4


class LockingStore(MemoryStore):
    """Keeps one object, as an object lock does."""

    def delete(self, keys_: object) -> None:
        wanted = list(keys_)  # type: ignore[call-overload]
        super().delete(key for key in wanted if key != keys.sentinel(name(20)))
        if keys.sentinel(name(20)) in wanted:
            raise DeleteRefused("locked", keys=(keys.sentinel(name(20)),))


def test_everything_leaves_no_seal_without_its_backup(app: FakeApp) -> None:
    store = LockingStore(now=lambda: NOW)
    for info in app.made.store.list():
        store.put(info.key, app.made.store.get(info.key))
    app.made.store = store
    result = run(app, "everything", "FORCE", "--confirm", exit_code=1)
    assert "the store keeps the seals of backups" in str(result.exception)
    assert left(app) == [name(20)]
    assert len(segments(app)) == 37
