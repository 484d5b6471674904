"""The contract of engines (pgbackup/engines/port.py), as suites for every implementation.

A test module subclasses ``ShippingContract`` and gives it ``engine`` and ``store``; or ``EngineContract``, which needs
a real server as well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.core.lsn import MIB, SegmentName
from pgbackup.core.recovery_target import Target
from pgbackup.core.retention import RetentionPolicy
from pgbackup.engines.backup.base_backup import BackupResult
from pgbackup.engines.base import SilentProgress
from pgbackup.engines.check.report import CheckReport
from pgbackup.engines.expire.expire import ExpiryRequest, run_expiry
from pgbackup.engines.port import BackupOrder, Engine
from pgbackup.engines.restore.restore import Restore, RestoreRequest
from pgbackup.engines.wal.events import Durable, Failed, WakeableQueue
from pgbackup.engines.wal.fence import Fence, Superseded
from pgbackup.engines.wal.resident_wal import ResidentWal
from pgbackup.engines.wal.upload_stats import UploadStats
from pgbackup.errors import NotInArchive, WrongCluster
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec, Compression
from pgbackup.repository.wal_objects import stored_keys
from pgbackup.storage.base import ObjectStore
from tests.fix_postgres import ServerFactory
from tests.made_wal import SYSTEM, MadeWal
from tests.streaming import Streaming, flush_lsn, streaming
from tests.tool_engine import fill, rows, start_restored

CODEC = Codec(Compression("zstd", 1))
HISTORY = b"1\t0/3000000\tno recovery target specified\n"


def made_segment(number: int, xid: int = 100) -> tuple[SegmentName, bytes]:
    """A segment of one MiB; another ``xid`` makes another one of the same name."""
    wal = MadeWal(number)
    wal.commit(xid, datetime(2026, 1, 1, tzinfo=UTC))
    wal.fill_to(0.9)
    wal.switch()
    return SegmentName(1, number, MIB), wal.segment(number)


class Shipment:
    """Uploads of one session, driven as a WalSession does."""

    def __init__(self, engine: Engine, store: ObjectStore) -> None:
        self.events = WakeableQueue()
        self.stats = UploadStats()
        self.is_open = True
        self.fence = Fence(store, 1)
        self.fence.put_up()
        self.uploads = engine.shipping(store).open_uploads(self.events, self.stats, self.fence.check)

    def send(self, name: SegmentName, data: bytes) -> None:
        upload = self.uploads.open(name, [])
        for begin in range(0, len(data), 100_000):
            self.uploads.feed(upload, data[begin : begin + 100_000])
        self.uploads.end(upload)

    def outcome(self, timeout: float = 60) -> Durable | Failed:
        deadline = time.monotonic() + timeout
        while not (events := self.events.take_all()):
            assert time.monotonic() < deadline, "nothing became of it"
            time.sleep(0.01)
        assert len(events) == 1
        return events[0]

    def close(self) -> None:
        self.uploads.close()
        if self.is_open:
            self.events.close()
        self.is_open = False


@pytest.fixture
def shipment(engine: Engine, store: ObjectStore) -> Iterator[Shipment]:
    made = Shipment(engine, store)
    yield made
    made.close()


class ShippingContract:
    """Subclass it, and give it ``engine`` and ``store``."""

    def test_what_is_called_durable_is_listed_and_reads_back(
        self, engine: Engine, store: ObjectStore, shipment: Shipment
    ) -> None:
        name, data = made_segment(7)
        shipment.send(name, data)
        assert shipment.outcome() == Durable(name, name.start, name.end, whole=True)
        assert len(stored_keys(store, str(name))) == 1
        reader = engine.wal_reader(store, system_identifier=SYSTEM)
        assert reader.is_there(str(name))
        assert b"".join(reader.segment(name)) == data
        assert shipment.stats.totals().segments == 1

    def test_the_same_again_is_durable_and_not_stored_again(self, store: ObjectStore, shipment: Shipment) -> None:
        name, data = made_segment(7)
        shipment.send(name, data)
        assert isinstance(shipment.outcome(), Durable)
        before = store.head(stored_keys(store, str(name))[0])
        shipment.send(name, data)
        assert isinstance(shipment.outcome(), Durable)
        assert store.head(stored_keys(store, str(name))[0]) == before

    def test_nothing_is_durable_behind_another_session(self, store: ObjectStore, shipment: Shipment) -> None:
        Fence(store, 1).put_up()
        shipment.send(*made_segment(7))
        failed = shipment.outcome()
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, Superseded)

    def test_other_content_is_never_overwritten(self, store: ObjectStore, shipment: Shipment) -> None:
        name, data = made_segment(7)
        shipment.send(name, data)
        assert isinstance(shipment.outcome(), Durable)
        before = store.head(stored_keys(store, str(name))[0])
        shipment.send(*made_segment(7, xid=200))
        failed = shipment.outcome()
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, WrongCluster)
        assert store.head(stored_keys(store, str(name))[0]) == before

    def test_histories(self, engine: Engine, store: ObjectStore) -> None:
        shipping = engine.shipping(store)
        assert shipping.put_history("00000002.history", HISTORY) is None
        assert shipping.put_history("00000002.history", HISTORY) is None
        assert shipping.put_history("00000002.history", HISTORY + b"x") == HISTORY
        assert engine.wal_reader(store, system_identifier=None).history(2) == HISTORY

    def test_what_is_not_there_is_not_in_the_archive(self, engine: Engine, store: ObjectStore) -> None:
        reader = engine.wal_reader(store, system_identifier=SYSTEM)
        assert not reader.is_there("000000010000000000000007")
        with pytest.raises(NotInArchive):
            next(reader.segment(SegmentName(1, 7, MIB)))

    def test_what_is_half_received_leaves_nothing(self, store: ObjectStore, shipment: Shipment) -> None:
        name, data = made_segment(7)
        upload = shipment.uploads.open(name, [])
        shipment.uploads.feed(upload, data[: MIB // 2])
        shipment.uploads.close()
        assert list(store.list(keys.WAL)) == []


class EngineContract:
    """Subclass it, and give it ``server``, ``store`` and ``engine``."""

    def test_a_backup_and_wal_come_back_and_an_old_one_goes(
        self, engine: Engine, store: ObjectStore, server: ThrowawayServer, make_server: ServerFactory
    ) -> None:
        fill(server, 0, 500)
        with streaming(server, store, shipping=engine.shipping(store)) as stream:
            stream.wait_streaming()
            first = self.backup(engine, store, stream)
            fill(server, 500, 700)
            second = self.backup(engine, store, stream)
            fill(server, 700, 1000)
            stream.wait_for(lambda position: position.whole >= flush_lsn(server) // (16 * MIB) * (16 * MIB))
        assert self.restored(engine, store, make_server, server.major) == list(range(1000))

        policy = RetentionPolicy(backups=1, window=timedelta(0))
        stop = threading.Event()
        request = ExpiryRequest(store, CODEC, policy, UTC, stop, lambda: True, remove_by_tool=engine.remove)
        report = run_expiry(request)
        assert (report.stopped, report.backups) == ("", (first.name,))
        assert not any(first.name in info.key for info in store.list(keys.BASEBACKUPS))
        assert report.removed.objects >= 4
        catalog = read_catalog(store, CODEC)
        assert [backup.name for backup in catalog.backups] == [second.name]
        assert min(catalog.segments[1]) == second.start_lsn // (16 * MIB)
        assert self.restored(engine, store, make_server, server.major) == list(range(1000))

    def test_a_server_can_stop_and_streaming_goes_on_after_it(
        self, engine: Engine, store: ObjectStore, server: ThrowawayServer
    ) -> None:
        with streaming(server, store, shipping=engine.shipping(store)) as stream:
            stream.wait_streaming()
            fill(server, 0, 100)
            server.execute("INSERT INTO t SELECT generate_series(100, 199)")
            begin = time.monotonic()
            server.stop("fast")
            assert time.monotonic() - begin < 20
            server.start()
            fill(server, 200, 300)
            stream.wait_for(lambda position: position.whole >= flush_lsn(server) // (16 * MIB) * (16 * MIB))

    def test_check_names_nothing_that_fails(self, engine: Engine) -> None:
        report = CheckReport()
        engine.check(report, None)
        assert report.count("failure") == 0, report.lines

    def backup(self, engine: Engine, store: ObjectStore, stream: Streaming) -> BackupResult:
        order = BackupOrder(store, ResidentWal(stream.progress, store))
        result = engine.take_backup(order, SilentProgress(), threading.Event())
        catalog = read_catalog(store, CODEC)
        found = catalog.backup(result.name)
        assert found is not None
        assert catalog.why_not_restorable(found) == "", "a backup is done when it can be restored"
        return result

    def restored(self, engine: Engine, store: ObjectStore, make_server: ServerFactory, major: int) -> list[int]:
        target = make_server.new_directory(f"restored-{time.monotonic_ns()}")
        request = RestoreRequest(directory=target, target=Target())
        restore = Restore(store, CODEC, read_catalog(store, CODEC), request, engine=engine)
        restore.run(restore.plan())
        server = start_restored(make_server, target, major)
        found = rows(server)
        server.stop("fast")
        return found
