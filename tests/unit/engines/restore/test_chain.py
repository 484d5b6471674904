"""What another program has put down, against WAL-G's list of the backup's files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pgbackup.core.lsn import MIB
from pgbackup.engines.restore.chain import BackupChain
from pgbackup.errors import RestoreError
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.memory import MemoryStore

NAME = "base_000000010000000000000009"
CODEC = Codec(Compression("lz4"))


def load(store: MemoryStore, files: list[str] | None) -> BackupChain:
    seal = {"LSN": 9 * 16 * MIB + 40, "FinishLSN": 9 * 16 * MIB + 400, "PgVersion": 150000, "SystemIdentifier": 7}
    store.put(keys.part(NAME, 1, "lz4"), b"x")
    store.put(keys.control_tar(NAME, "lz4"), b"x")
    if files is not None:
        listed = {name: {"IsIncremented": False, "IsSkipped": False} for name in files}
        store.put(keys.files_metadata(NAME), json.dumps({"Files": listed}).encode())
    store.put(keys.sentinel(NAME), json.dumps(seal).encode())
    catalog = read_catalog(store, CODEC)
    backup = catalog.backup(NAME)
    assert backup is not None
    return BackupChain.load(store, catalog, backup)


def test_what_a_tool_left_out_is_found(tmp_path: Path) -> None:
    (tmp_path / "base" / "5").mkdir(parents=True)
    (tmp_path / "base" / "5" / "1259").touch()
    # The control file has its temporary name, and what would disturb the recovery was removed.
    listed = ["/", "/base", "/base/5/1259", "/global/pg_control", "/standby.signal", "/pgbackup_wal", "/pgbackup_wal/x"]
    with load(MemoryStore(), listed) as chain:
        assert chain.check_fetched(tmp_path) == []
    many = [f"/base/5/{number}" for number in range(1000, 4000)]
    for number in range(1000, 3999):
        (tmp_path / "base" / "5" / str(number)).touch()
    with (
        load(MemoryStore(), many) as chain,
        pytest.raises(RestoreError, match=r"without base/5/3999$|without base/5/3999:"),
    ):
        chain.check_fetched(tmp_path)


def test_without_a_list_it_is_said_that_nothing_was_checked(tmp_path: Path) -> None:
    with load(MemoryStore(), None) as chain:
        assert "could not be checked" in chain.check_fetched(tmp_path)[0]
