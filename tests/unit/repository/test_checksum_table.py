"""The table of files: the same in memory and on disk."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from pgbackup.errors import StorageError
from pgbackup.repository.checksum_table import ChecksumTable, FileEntry

NAMES = ["base/1/2", "base/1/10", "base/ä", b"base/\xff".decode("utf-8", "surrogateescape"), "global/1"]


@pytest.fixture(params=[0, 2, 100], ids=["on disk", "spilled", "in memory"])
def table(request: pytest.FixtureRequest) -> ChecksumTable:
    table = ChecksumTable(spill_files=request.param)
    for number, name in enumerate(NAMES):
        table.add(FileEntry(name, number, f"{number:08x}", 1.5))
    return table


def test_what_goes_in_comes_out(table: ChecksumTable) -> None:
    with table:
        assert len(table) == len(NAMES)
        assert table.get("base/1/10") == FileEntry("base/1/10", 1, "00000001", 1.5)
        assert table.get("nothing") is None
        expected = sorted(NAMES, key=lambda name: name.encode("utf-8", "surrogateescape"))
        assert [entry.path for entry in table] == expected
        table.add(FileEntry(NAMES[0], 99, "ff"))
        assert table.pop(NAMES[0]) == FileEntry(NAMES[0], 99, "ff")
        assert table.pop(NAMES[0]) is None
        assert len(table) == len(NAMES) - 1


def test_nothing_stays_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ChecksumTable(spill_files=0) as table:
        table.add(FileEntry("a", 1, "00"))
        assert any(tmp_path.iterdir())
    assert not any(tmp_path.iterdir())


def test_a_full_disk_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit for the size of files stands in for it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ChecksumTable(spill_files=0) as table:
        table.add(FileEntry("a", 1, "00"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, before[1]))
        try:
            with pytest.raises(StorageError, match="cannot be written") as caught:
                add_many(table)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "TMPDIR" in caught.value.hint


def add_many(table: ChecksumTable) -> None:
    for number in range(200_000):
        table.add(FileEntry(f"{number:0200}", number, "00"))
