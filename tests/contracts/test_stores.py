"""The contract of an object store on what needs no server: the twin, the folder, and wrappers around them.

tests/integration/test_s3_store.py runs it on a real S3 server.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pgbackup.storage.base import ObjectStore
from pgbackup.storage.file import FileStore
from pgbackup.storage.limited import LimitedStore, Priority, RateLimiter
from pgbackup.storage.memory import MemoryStore
from tests.contracts.object_store import KEYS, ObjectStoreContract


class TestMemoryStore(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return MemoryStore(min_part_bytes=1000)


class TestFileStore(ObjectStoreContract):
    # On a disk, "a" cannot be an object and a folder.
    keys = tuple(key for key in KEYS if key != "b/1")

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return FileStore(tmp_path / "not" / "there yet")


class TestLimitedStore(ObjectStoreContract):
    @pytest.fixture(params=list(Priority))
    def store(self, request: pytest.FixtureRequest) -> ObjectStore:
        return LimitedStore(MemoryStore(), RateLimiter(1 << 40), request.param)
