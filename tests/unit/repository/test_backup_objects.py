"""Objects of a backup that somebody deleted are missed by a listing, before anything is read."""

from __future__ import annotations

import pytest

from pgbackup.core.lsn import Lsn
from pgbackup.repository import keys
from pgbackup.repository.backup_objects import missing_objects, with_missing_objects
from pgbackup.repository.catalog_reader import read_catalog
from tests.made_backup import MadeRepository
from tests.made_wal import MadeWal


@pytest.fixture
def made() -> MadeRepository:
    """One backup, whose seal says how much was stored."""
    made = MadeRepository()
    made.claim()
    wal = MadeWal()
    wal.filler(3000)
    made.wal(wal)
    start, stop = Lsn(wal.start + 100), Lsn(wal.start + 1000)
    name = made.backup(start, stop, parts=3)
    stored = sum(info.size_bytes for info in made.store.list(keys.tar_folder(name)))
    documents = made.documents(start, stop)
    made.store.put(keys.sentinel(name), type(documents)(**{**vars(documents), "stored_bytes": stored}).sentinel())
    return made


def problem(made: MadeRepository) -> str:
    (backup,) = with_missing_objects(made.store, read_catalog(made.store, made.codec)).backups
    assert backup.problem == missing_objects(made.store, backup)
    return backup.problem


def test_a_whole_backup(made: MadeRepository) -> None:
    assert problem(made) == ""


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("part_002", "part 2 is missing"),
        ("part_003", "bytes, not"),
        ("pg_control", "pg_control.tar"),
        ("backup_manifest", "backup_manifest is missing or empty"),
    ],
)
def test_what_is_gone_is_named(made: MadeRepository, lost: str, words: str) -> None:
    made.store.delete([info.key for info in made.store.list(keys.BASEBACKUPS) if lost in info.key])
    assert words in problem(made)
