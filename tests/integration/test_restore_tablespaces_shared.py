"""Two restores never fill one tablespace, one that was killed at its very end can be repeated; and what becomes of
tablespaces that are younger than the backup."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from pgbackup.engines.restore import place
from pgbackup.engines.restore.place import MARKER
from pgbackup.errors import RestoreError
from tests.restoring import SETTINGS, Repository, filled, insert, rows


@pytest.fixture
def with_tablespace(make_server):
    """A repository with a backup that has a tablespace, and where that lay."""
    source = make_server(settings=SETTINGS)
    location = make_server.new_directory("fast")
    source.execute("CREATE TABLE t (n int)")
    source.execute(f"CREATE TABLESPACE fast LOCATION '{location}'")
    source.execute("CREATE TABLE there TABLESPACE fast AS SELECT g FROM generate_series(1, 1000) g")
    return filled(Repository(make_server), source), str(location)


def test_a_tablespace_that_another_restore_fills_is_refused(with_tablespace, make_server):
    repository, location = with_tablespace
    new = make_server.new_directory("new")
    first = repository.prepare(tablespace_map={location: str(new)})
    second = repository.prepare(tablespace_map={location: str(new)})
    plan = first.plan()
    reached, go_on, results = threading.Event(), threading.Event(), []

    def wait(operation: str, key: str) -> None:
        if operation == "open_read" and "pg_control.tar" in key and not reached.is_set():
            reached.set()
            go_on.wait(30)

    repository.store.on_call = wait
    thread = threading.Thread(target=lambda: results.append(first.run(plan)))
    thread.start()
    assert reached.wait(30)
    with pytest.raises(RestoreError, match="another restore is filling"):
        second.run(plan)
    go_on.set()
    thread.join(60)
    assert results[0].verified
    assert not (new / MARKER).exists()


def test_killed_at_the_very_end_it_can_be_repeated(with_tablespace, make_server, monkeypatch):
    repository, location = with_tablespace
    directory, new = make_server.new_directory("data"), make_server.new_directory("new")
    real, calls = place.flush_folder, []

    def killed(path: Path) -> None:
        calls.append(path)
        if (directory / "global" / "pg_control").exists() or not (directory / MARKER).exists():
            raise KeyboardInterrupt
        real(path)

    monkeypatch.setattr(place, "flush_folder", killed)
    with pytest.raises(KeyboardInterrupt):
        repository.restore(directory=directory, tablespace_map={location: str(new)})
    monkeypatch.undo()
    assert not (directory / "global" / "pg_control").exists()
    assert repository.restore(directory=directory, tablespace_map={location: str(new)}).verified


@pytest.mark.parametrize(("major", "place"), [(14, "gone"), (18, "gone"), (18, "empty")])
def test_a_tablespace_that_is_younger_than_the_backup(make_server, major, place):
    """Recovery makes it where it lay, and ends in an error where that directory is not there."""
    source = make_server(major, settings=SETTINGS)
    source.execute("CREATE TABLE t (n int)")
    repository = Repository(make_server)
    repository.archiver.backup(source)
    location = make_server.new_directory("fast disk") / "below"
    source.account.make_directory(location)
    source.execute(f"CREATE TABLESPACE fast LOCATION '{location}'")
    source.execute("CREATE TABLE there TABLESPACE fast AS SELECT g FROM generate_series(1, 1000) g")
    insert(source, 1)
    repository.archiver.wal(source)
    with pytest.raises(RestoreError, match=r"creates tablespace .* is not empty") as caught:
        repository.restore()
    assert "machine where that place is free" in caught.value.hint
    source.stop("immediate")
    shutil.rmtree(location if place == "empty" else location.parent)
    if place == "empty":
        source.account.make_directory(location)
    result = repository.restore()
    assert any(f"in {location}, as the original did after the backup" in note for note in result.notes)
    restored = make_server.over(result.directory, major)
    restored.wait_promoted()
    assert restored.execute("SELECT count(*) FROM there") == [(1000,)]
    assert rows(restored) == [1]


def test_a_younger_tablespace_that_a_newer_backup_shows_is_judged_in_the_plan(make_server):
    source = make_server(settings=SETTINGS)
    source.execute("CREATE TABLE t (n int)")
    repository = Repository(make_server)
    older = repository.archiver.backup(source)
    location = make_server.new_directory("fast disk")
    source.execute(f"CREATE TABLESPACE fast LOCATION '{location}'")
    source.execute("CREATE TABLE there TABLESPACE fast AS SELECT g FROM generate_series(1, 1000) g")
    repository.archiver.backup(source)
    insert(source, 1)
    repository.archiver.wal(source)
    target = make_server.new_directory("target")
    prepared = repository.prepare(backup=older, directory=target)
    plan = prepared.plan()
    assert [each.location for each in plan.later_tablespaces] == [str(location)]
    with pytest.raises(RestoreError, match="creates tablespace"):
        prepared.run(plan)
    assert not any(target.iterdir())
