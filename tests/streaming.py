"""A WAL receiver in a thread of the test, over any store; and what the repository holds, put together again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.engines.presence.lease import Lease
from pgbackup.engines.wal.pieces import read_piece
from pgbackup.engines.wal.port import WalShipping
from pgbackup.engines.wal.progress import WalPosition, WalProgress
from pgbackup.engines.wal.receiver import ReceiverOptions, WalReceiver
from pgbackup.errors import ObjectMissing
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.base import ObjectStore

ZSTD = Codec(Compression("zstd", 1))
FILL = "INSERT INTO filler SELECT repeat(md5(i::text), 20) FROM generate_series(1, {rows}) i"


@dataclass
class Streaming:
    """A receiver that runs; ``stop`` ends it as SIGTERM would."""

    progress: WalProgress
    thread: threading.Thread
    stop_event: threading.Event

    def stop(self, timeout: float = 30) -> WalPosition:
        self.stop_event.set()
        self.thread.join(timeout)
        assert not self.thread.is_alive(), "the receiver did not stop"
        return self.progress.get()

    def wait_confirmed(self, lsn: int, timeout: float = 60) -> WalPosition:
        """Wait until WAL to ``lsn`` is confirmed."""
        return self.wait_for(lambda position: position.confirmed >= lsn, timeout)

    def wait_streaming(self, timeout: float = 30) -> WalPosition:
        return self.wait_for(lambda position: position.streaming, timeout)

    def wait_for(self, reached: Any, timeout: float = 60) -> WalPosition:
        deadline = time.monotonic() + timeout
        while not reached(position := self.progress.get()):
            assert time.monotonic() < deadline, f"not reached in {timeout:g} s: {position}"
            time.sleep(0.01)
        return position


@contextmanager
def streaming(
    server: ThrowawayServer,
    store: ObjectStore,
    *,
    flush_seconds: float | None = 0.2,
    codec: Codec = ZSTD,
    writer: str = "test",
    host: str = "here",
    adopt: bool = False,
    shipping: WalShipping | None = None,
) -> Iterator[Streaming]:
    """Receive WAL of a server into a store until the block ends."""
    options = ReceiverOptions(
        conninfo=server.conninfo(user="pgbackup"),
        application_name="pgbackup",
        slot="pgbackup",
        flush_seconds=flush_seconds,
        stop_seconds=8.0,
        concurrency=4,
        writer=writer,
        host=host,
        adopt=adopt,
    )
    progress, stop = WalProgress(), threading.Event()
    receiver = WalReceiver(options, store, codec, progress, Lease(store, writer=writer, host=host), shipping=shipping)
    thread = threading.Thread(target=receiver.run, args=(stop,), name="receiver", daemon=True)
    thread.start()
    running = Streaming(progress, thread, stop)
    try:
        yield running
    finally:
        stop.set()
        thread.join(30)


def fill(server: ThrowawayServer, rows: int = 30_000) -> None:
    """Write some WAL."""
    server.execute("CREATE TABLE IF NOT EXISTS filler (t text)")
    server.execute(FILL.format(rows=rows))


def flush_lsn(server: ThrowawayServer) -> Lsn:
    """The end of the server's durable WAL."""
    return Lsn.parse(server.execute("SELECT pg_current_wal_flush_lsn()::text")[0][0])


def piece_keys(store: ObjectStore) -> list[str]:
    """The keys of the pieces that are stored."""
    return [i.key for i in store.list(keys.WAL) if keys.parse_piece(i.key)]


def stored_wal(store: ObjectStore, segment: SegmentName, codec: Codec = ZSTD) -> bytes:
    """The bytes of a segment as the repository has them: the whole object, else its pieces put together.

    A running stream merges pieces and removes them: what was listed may be gone when it is read.
    """
    for _ in range(20):
        try:
            return _stored_wal(store, segment, codec)
        except ObjectMissing:
            continue
    return _stored_wal(store, segment, codec)


def _stored_wal(store: ObjectStore, segment: SegmentName, codec: Codec) -> bytes:
    whole = keys.wal(str(segment), codec.extension)
    if store.head(whole) is not None:
        return codec.decode(whole, store.get(whole))
    data = bytearray()
    names = [n for i in store.list(keys.pieces_folder(str(segment))) if (n := keys.parse_piece(i.key))]
    for name in sorted(names, key=lambda n: (n.first, n.end)):
        piece = read_piece(store, codec, name)
        assert name.first <= len(data), f"a hole before {name.key}"
        overlap = len(data) - name.first
        assert bytes(data[name.first :][: len(piece)]) == piece[:overlap], f"{name.key} differs from another piece"
        data += piece[overlap:]
    return bytes(data)


def assert_wal_equal(server: ThrowawayServer, store: ObjectStore, timeline: int, start: int, end: int) -> None:
    """The repository's WAL of ``[start, end)`` equals the server's own files."""
    size = int(server.execute("SELECT bytes_per_wal_segment FROM pg_control_init()")[0][0])
    for number in range(start // size, (end - 1) // size + 1):
        segment = SegmentName(timeline, number, size)
        upto = min(end - segment.start, size)
        own = (server.data_directory / "pg_wal" / str(segment)).read_bytes()[:upto]
        stored = stored_wal(store, segment)
        assert len(stored) >= upto, f"{segment}: only {len(stored)} of {upto} bytes are stored"
        assert stored[:upto] == own, f"{segment} differs"
