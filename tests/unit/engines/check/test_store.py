"""The store's checks against stores that lie: each lie is found, and nothing is left behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.engines.check.report import CheckReport
from pgbackup.engines.check.store import check_clocks, check_objects
from pgbackup.errors import StoreDenied
from pgbackup.storage.memory import MemoryStore


def outcome(store):
    report = CheckReport()
    check_objects(report, store)
    return {line.name: line for line in report.lines}


def test_a_good_store():
    store = MemoryStore()
    lines = outcome(store)
    assert {line.status for line in lines.values()} == {"ok"}
    assert set(lines) == {
        "put", "get", "list", "conditional put", "conditional replace", "multipart upload", "multipart clean-up",
        "delete",
    }  # fmt: skip
    assert not list(store.list())
    assert not store.list_uploads()


class Overwrites(MemoryStore):
    def put_if_absent(self, key, data):
        self.put(key, data)
        return True


class SaysItRefused(Overwrites):
    def put_if_absent(self, key, data):
        return super().put_if_absent(key, data) and data != b"other"


class ReplacesAnything(MemoryStore):
    def replace(self, key, data, etag):
        self.put(key, data)
        return True


class ListsNothing(MemoryStore):
    def list(self, prefix="", *, start_after=""):
        return iter(())


class KeepsEverything(MemoryStore):
    def delete(self, keys):
        list(keys)


class ForgetsUploads(MemoryStore):
    def list_uploads(self, prefix=""):
        return []


class ShowsOtherETags(MemoryStore):
    """What it was sent is not what it shows, to who compares; so does `rclone serve s3`."""

    def start_upload(self, key):
        upload = super().start_upload(key)
        self.put(key, b"another")
        return upload


class DoesNotKnowConditions(MemoryStore):
    conditional_put = False


@pytest.mark.parametrize(
    ("store", "name", "status"),
    [
        (Overwrites(), "conditional put", "failure"),
        (SaysItRefused(), "conditional put", "failure"),
        (DoesNotKnowConditions(), "conditional put", "warning"),
        (ReplacesAnything(), "conditional replace", "warning"),
        (ListsNothing(), "list", "failure"),
        (KeepsEverything(), "delete", "warning"),
        (ForgetsUploads(), "multipart clean-up", "warning"),
        (ShowsOtherETags(), "multipart upload", "failure"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, MemoryStore) else "",
)
def test_each_lie_is_found(store, name, status):
    line = outcome(store)[name]
    assert line.status == status
    assert line.hint


@pytest.mark.parametrize(
    ("method", "name", "status"),
    [
        ("put", "put", "failure"), ("open_read", "get", "failure"), ("list", "list", "failure"),
        ("start_upload", "multipart upload", "failure"), ("list_uploads", "multipart clean-up", "warning"),
        ("delete", "delete", "warning"), ("replace", "conditional replace", "failure"),
    ],
)  # fmt: skip
def test_a_missing_permission_is_named(monkeypatch, method, name, status):
    store = MemoryStore()

    def refuse(*args, **options):
        raise StoreDenied("refused: it needs s3:Something", hint="give it.")

    monkeypatch.setattr(store, method, refuse)
    line = outcome(store)[name]
    assert (line.status, line.text, line.hint) == (status, "refused: it needs s3:Something", "give it.")


class WithoutAnswer(MemoryStore):
    def clock(self):
        raise StoreDenied("no such bucket")


def test_a_clock_that_cannot_be_read_is_not_called_fine_as_well():
    report = CheckReport()
    check_clocks(report, WithoutAnswer(), None)
    assert [(line.status, line.text) for line in report.lines] == [("failure", "no such bucket")]


class WithClock(MemoryStore):
    def __init__(self, ahead):
        super().__init__()
        self._ahead = timedelta(seconds=ahead)

    def clock(self):
        return datetime.now(UTC) + self._ahead


@pytest.mark.parametrize(
    ("store", "server", "status", "said"),
    [
        (0, 0, "ok", "this machine, the server, the store: within"),
        (None, None, "ok", "nothing to compare"),
        (None, 2, "ok", "this machine, the server: within 2.0 s"),
        (8, 0, "warning", "the store is 8.5 s ahead of this machine"),
        (-4, 4, "warning", "the server is 7.5 s ahead of the store"),
        (0, 400, "failure", "the server is 400.0 s ahead of this machine"),
        (-400, None, "failure", "this machine is 399.5 s ahead of the store"),
    ],
)
def test_clocks(store, server, status, said):
    report = CheckReport()
    ahead = None if server is None else timedelta(seconds=server)
    check_clocks(report, WithClock(store) if store is not None else None, ahead)
    assert [line.status for line in report.lines] == [status]
    assert said in report.lines[0].text
