"""The stream of WAL that a base backup brings itself, where no `pgbackup run` streams."""

from __future__ import annotations

import threading

import pytest

from pgbackup.core.lsn import MIB
from pgbackup.engines.wal import session
from pgbackup.engines.wal.coverage import choose_coverage
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.storage.memory import MemoryStore
from tests.streaming import ZSTD, flush_lsn

THREAD = "backup-wal"


def test_it_ends_when_it_is_told_to_and_not_at_its_next_look(
    server: ThrowawayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_IDLE_SECONDS", 60.0)
    wal = choose_coverage(server.conninfo(), "pgbackup", "pgbackup", MemoryStore(), ZSTD, writer="test")
    wal.begin(1, flush_lsn(server), 16 * MIB)
    thread = next(thread for thread in threading.enumerate() if thread.name == THREAD)
    thread.join(0.5)  # it has nothing to do and waits
    wal.close()  # which waits for ten seconds at most
    assert not thread.is_alive()
