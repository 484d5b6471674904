"""Objects of a backup that somebody deleted are missed by a listing, before anything is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgbackup.core.lsn import Lsn
from pgbackup.repository import keys
from pgbackup.repository.backup_objects import missing_objects, with_missing_objects
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.documents import PART_SIZES_KEY
from pgbackup.repository.part_sizes import part_sizes
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


def note_sizes(made: MadeRepository, noted: Any = None) -> list[str]:
    """Put the sizes of the parts (or what is given) into metadata.json; returns the keys of the tars."""
    (sealed,) = (info.key for info in made.store.list(keys.BASEBACKUPS) if info.key.endswith("_sentinel.json"))
    key = keys.metadata(sealed.removeprefix(keys.BASEBACKUPS).partition("_backup_")[0])
    objects = {info.key: info.size_bytes for info in made.store.list(keys.BASEBACKUPS)}
    document = json.loads(made.store.get(key))
    document[PART_SIZES_KEY] = part_sizes(objects) if noted is None else noted
    made.store.put(key, json.dumps(document).encode())
    return sorted(key for key in objects if "/tar_partitions/" in key)


@pytest.mark.parametrize("which", ["part_001", "part_003", "pg_control"])
def test_a_tar_that_was_cut_is_named_by_its_key(made: MadeRepository, which: str) -> None:
    (key,) = (key for key in note_sizes(made) if which in key)
    assert problem(made) == ""
    whole = made.store.get(key)
    made.store.put(key, whole[:-1])
    assert problem(made) == f"{key} has {len(whole) - 1} bytes, not {len(whole)}"


def test_the_last_part_is_missed_by_its_key(made: MadeRepository) -> None:
    (key,) = (key for key in note_sizes(made) if "part_003" in key)
    made.store.delete([key])
    assert problem(made) == f"{keys.split_extension(key)[0]} is missing"


def test_a_part_too_many_is_named(made: MadeRepository) -> None:
    key = note_sizes(made)[0]
    made.store.put(key.replace("part_001", "part_777"), made.store.get(key))
    assert problem(made) == f"{key.replace('part_001', 'part_777')} is not of this backup"


@pytest.mark.parametrize("noted", [{}, [1, "2", 3], [True, 1, 1], [-1, 5, 5], [1 << 70], "1", [[]]])
def test_sizes_that_cannot_be_leave_the_sum(made: MadeRepository, noted: Any) -> None:
    key = note_sizes(made, noted)[0]
    made.store.put(key, made.store.get(key)[:-1])
    assert "its parts hold" in problem(made)
