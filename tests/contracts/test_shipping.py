"""The contract of shipping WAL, without a server: by ourselves, WAL-E, WAL-G, and a tool that pretends to be one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pgbackup.engines.native.engine import NativeEngine, NativeOptions
from pgbackup.engines.port import Engine
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.file import FileStore
from pgbackup.storage.memory import MemoryStore
from tests.contracts.engine import CODEC, ShippingContract, shipment
from tests.fix_tools import needs_wal_g
from tests.tool_engine import pretend_tool, tool_engine

pytestmark = pytest.mark.not_for_walg("segments of 1 MiB, and no cluster.json that says so")

__all__ = ["shipment"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


class TestNative(ShippingContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return MemoryStore()

    @pytest.fixture
    def engine(self) -> Engine:
        return NativeEngine(CODEC, NativeOptions("", "test", "here"))


class _OnFiles(ShippingContract):
    @pytest.fixture
    def store(self, repository: Path) -> ObjectStore:
        return FileStore(repository)

    @pytest.fixture(autouse=True)
    def spool(self, tmp_path: Path) -> Iterator[Path]:
        """Where the engine spools; nothing is left there."""
        folder = tmp_path / "spool"
        folder.mkdir()
        yield folder
        assert list(folder.iterdir()) == []


class TestPretended(_OnFiles):
    @pytest.fixture
    def engine(self, repository: Path, tmp_path: Path, spool: Path) -> Iterator[Engine]:
        mode = tmp_path / "mode"
        mode.write_text("good")
        program = pretend_tool(tmp_path)
        with closing(tool_engine("wal-g", program, repository, spool, PRETEND_MODE=str(mode))) as engine:
            yield engine


class TestWalE(_OnFiles):
    @pytest.fixture
    def engine(self, repository: Path, wal_e: Path, spool: Path) -> Iterator[Engine]:
        with closing(tool_engine("wal-e", wal_e, repository, spool)) as engine:
            yield engine


@needs_wal_g
class TestWalG(_OnFiles):
    @pytest.fixture
    def engine(self, repository: Path, wal_g: Path, spool: Path) -> Iterator[Engine]:
        with closing(tool_engine("wal-g", wal_g, repository, spool)) as engine:
            yield engine
