"""The contract of engines on real servers: ourselves, WAL-E on the last version that it can, WAL-G."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pgbackup.engines.native.engine import NativeEngine, NativeOptions
from pgbackup.engines.port import Engine
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.file import FileStore
from tests.contracts.engine import CODEC, EngineContract
from tests.fix_postgres import ServerFactory
from tests.fix_tools import needs_lzo, needs_wal_g
from tests.tool_engine import tool_engine

pytestmark = pytest.mark.timeout(300)


class _OnFiles(EngineContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return FileStore(tmp_path / "repository")


class TestNative(_OnFiles):
    @pytest.fixture
    def server(self, make_server: ServerFactory) -> ThrowawayServer:
        return make_server()

    @pytest.fixture
    def engine(self, server: ThrowawayServer) -> Engine:
        return NativeEngine(CODEC, NativeOptions(server.conninfo(user="pgbackup"), "test", "here"))


@needs_lzo
@pytest.mark.not_for_walg("WAL-E's own layout")
class TestWalE(_OnFiles):
    @pytest.fixture
    def server(self, make_server: ServerFactory) -> ThrowawayServer:
        return make_server(14)

    @pytest.fixture
    def engine(self, server: ThrowawayServer, wal_e: Path, tmp_path: Path) -> Iterator[Engine]:
        conninfo = server.conninfo(local=True)
        with closing(tool_engine("wal-e", wal_e, tmp_path / "repository", tmp_path, conninfo=conninfo)) as engine:
            yield engine


@needs_wal_g
@pytest.mark.not_for_walg("wal-g's own writing")
class TestWalG(_OnFiles):
    @pytest.fixture
    def server(self, make_server: ServerFactory) -> ThrowawayServer:
        return make_server()

    @pytest.fixture
    def engine(self, server: ThrowawayServer, wal_g: Path, tmp_path: Path) -> Iterator[Engine]:
        conninfo = server.conninfo(local=True)
        with closing(tool_engine("wal-g", wal_g, tmp_path / "repository", tmp_path, conninfo=conninfo)) as engine:
            yield engine
