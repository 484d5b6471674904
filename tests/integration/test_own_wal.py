"""The stream of WAL that a base backup brings itself, where no `pgbackup run` streams."""

from __future__ import annotations

import threading

import pytest

from pgbackup.core.lsn import MIB, Lsn
from pgbackup.engines.restore.facts import read_bookkeeping
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


def test_what_it_did_not_store_is_not_called_durable(server: ThrowawayServer) -> None:
    """A backup that is interrupted leaves no note: a restore would take the WAL in it for vanished."""
    store = MemoryStore()
    server.execute("SELECT pg_switch_wal()")
    wal = choose_coverage(server.conninfo(), "pgbackup", "pgbackup", store, ZSTD, writer="test")
    wal.begin(1, flush_lsn(server), 16 * MIB)
    wal.close()
    assert read_bookkeeping(store).last_confirmed is None

    wal = choose_coverage(server.conninfo(), "pgbackup", "pgbackup", store, ZSTD, writer="test")
    start = flush_lsn(server)
    end = Lsn((start // (16 * MIB) + 1) * 16 * MIB)
    wal.begin(1, start, 16 * MIB)
    server.execute("CREATE TABLE t (n int); SELECT pg_switch_wal()")
    wal.wait_for(1, end, 16 * MIB, threading.Event(), tail_counts=False)
    wal.close()
    assert read_bookkeeping(store).last_confirmed == (1, end)
