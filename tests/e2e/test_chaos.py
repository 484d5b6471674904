"""Anything at any moment, in an order that a seed chooses; then the host dies, and every acknowledged row is there.

Zero loss: a flush interval of 0, and pgbackup the synchronous standby. One short seed runs with the suite; longer:

    PGBACKUP_TEST_CHAOS_SEED=7 PGBACKUP_TEST_CHAOS_STEPS=60 PGBACKUP_TEST_CHAOS_SEGMENT_MB=1 \\
        pytest tests/e2e/test_chaos.py
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from pgbackup.postgres.process_tree import child_processes
from pgbackup.postgres.throwaway import ThrowawayServer
from tests.fix_app import MakeProgram, Program, Resident, Restore
from tests.fix_postgres import ServerFactory
from tests.fix_proxy import Gateway, TcpProxy
from tests.fix_store import S3Server
from tests.workload import CounterWriter, assert_counter

pytestmark = pytest.mark.timeout(3600)

SEED = int(os.environ.get("PGBACKUP_TEST_CHAOS_SEED", "11"))
STEPS = int(os.environ.get("PGBACKUP_TEST_CHAOS_STEPS", "7"))
SEGMENT_MB = int(os.environ.get("PGBACKUP_TEST_CHAOS_SEGMENT_MB", "1"))
PROGRESS_SECONDS = 90
MOST_ROW_BYTES = 200_000
WHOLE = "/wal_005/0"
FENCE = "/pgbackup_005/fences/"


class RandomRows(CounterWriter):
    """Rows of random sizes, from a few bytes to many pages, that no compression makes smaller."""

    def __init__(self, conninfo: str, table: str, dice: random.Random) -> None:
        super().__init__(conninfo, table=table, pause_seconds=0, reconnect=True)
        self._dice = dice

    def _insert(self, connection: psycopg.Connection[Any]) -> None:
        size = int(self._dice.choice((10, 100, 8000, MOST_ROW_BYTES)) * self._dice.random())
        self._payload = self._dice.randbytes(size // 2).hex()
        super()._insert(connection)


@dataclass
class Chaos:
    """The host, its ways to the server and to the store, and what may happen to them."""

    server: ThrowawayServer
    program: Program
    to_server: TcpProxy
    to_store: TcpProxy
    gateway: Gateway
    dice: random.Random
    resident: Resident
    done: list[str] = field(default_factory=list)

    def step(self) -> None:
        """Something happens, and is over again."""
        what = self.dice.choice(self._steps())
        self.done.append(what.__name__.strip("_"))
        print(f"chaos: {self.done[-1]}", flush=True)
        what()

    def _steps(self) -> list[Callable[[], None]]:
        mild = [self._switch, self._checkpoint, self._much_wal, self._nothing]
        answers = [self._lost_answers, self._refused_requests, self._broken_bodies]
        lines = [self._cut_store, self._cut_server, self._no_store, self._no_server, self._silent_store]
        return [*mild, *answers, *lines, self._silent_server, self._frozen_server, *self._ends()]

    def _ends(self) -> list[Callable[[], None]]:
        return [self._killed, self._killed, self._replaced, self._stopped, self._crash, self._crash, self._restart]

    def _wait(self, most: float) -> None:
        time.sleep(self.dice.random() * most)

    # -- the server -------------------------------------------------------------------------------------------------

    def _nothing(self) -> None:
        self._wait(1.0)

    def _switch(self) -> None:
        self.server.execute("SELECT pg_switch_wal()")

    def _checkpoint(self) -> None:
        self.server.execute("CHECKPOINT")

    def _much_wal(self) -> None:
        """More than a segment at once: the server is past it before its pieces are."""
        rows = self.dice.randrange(200, 3000)
        self.server.execute(
            "SET synchronous_commit = local; CREATE TABLE IF NOT EXISTS filler (t text);"
            f"INSERT INTO filler SELECT repeat(md5(i::text), 30) FROM generate_series(1, {rows}) i"
        )

    def _crash(self) -> None:
        self.server.kill()
        self._wait(0.5)
        self.server.start()

    def _restart(self) -> None:
        self.server.restart("fast")

    def _frozen_server(self) -> None:
        processes = [self.server.pid, *child_processes(self.server.pid)]
        self._send(processes, signal.SIGSTOP)
        self._wait(3.0)
        self._send(processes[::-1], signal.SIGCONT)

    def _send(self, processes: list[int], number: signal.Signals) -> None:
        for pid in processes:
            # A backend or a worker may just have ended.
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    # -- pgbackup ---------------------------------------------------------------------------------------------------

    def _killed(self) -> None:
        self.resident.kill()
        self._wait(0.5)
        self.resident = self.program.run()

    def _stopped(self) -> None:
        self.resident.process.send_signal(signal.SIGTERM)
        code = self.resident.process.wait(60)
        # A process that has only begun has no handler yet.
        assert code in (0, -signal.SIGTERM), f"exit {code}\n{self.resident.log()}"
        self.resident = self.program.run()

    def _replaced(self) -> None:
        """The new container is there before the old one has gone."""
        new = self.program.run()
        self._wait(2.0)
        self.resident.kill()
        self.resident = new

    # -- the lines --------------------------------------------------------------------------------------------------

    def _cut_store(self) -> None:
        self.to_store.cut_after(self.dice.randrange(1, 5000), times=self.dice.randrange(1, 6))
        self.to_store.cut()

    def _broken_bodies(self) -> None:
        self.to_store.cut_before_bodies(self.dice.randrange(1, 4))
        self.to_store.cut()

    def _cut_server(self) -> None:
        self.to_server.cut_after(self.dice.randrange(1, 200_000), times=self.dice.randrange(1, 4))
        self.to_server.cut()

    def _no_store(self) -> None:
        self._gone(self.to_store)

    def _no_server(self) -> None:
        self._gone(self.to_server)

    def _gone(self, proxy: TcpProxy) -> None:
        proxy.stop_listening()
        self._wait(3.0)
        proxy.listen()

    def _silent_store(self) -> None:
        self._silent(self.to_store)

    def _silent_server(self) -> None:
        self._silent(self.to_server)

    def _silent(self, proxy: TcpProxy) -> None:
        proxy.pause()
        self._wait(3.0)
        if self.dice.random() < 0.5:
            # What was held back still arrives, at an end that nobody listens to any more.
            proxy.cut()
        proxy.resume()

    def _lost_answers(self) -> None:
        """The store does it, and nobody hears of it."""
        for method in self.dice.sample(("PUT", "POST", "DELETE", "GET"), 2):
            self.gateway.answer(method, self._objects(), 0, times=self.dice.randrange(1, 4), forwarded=True)

    def _refused_requests(self) -> None:
        status, code = self.dice.choice(
            ((503, "SlowDown"), (500, "InternalError"), (409, "ConditionalRequestConflict"), (0, ""))
        )
        method = self.dice.choice(("PUT", "DELETE", "GET", "POST"))
        self.gateway.answer(method, self._objects(), status, code, times=self.dice.randrange(1, 8))

    def _objects(self) -> str:
        return self.dice.choice((WHOLE, FENCE))


@pytest.fixture
def ways(s3_gateway: Gateway) -> Iterator[Callable[[ThrowawayServer], tuple[TcpProxy, TcpProxy]]]:
    """The way to a server and the way to the store."""
    proxies: list[TcpProxy] = []

    def make(server: ThrowawayServer) -> tuple[TcpProxy, TcpProxy]:
        proxies.extend(TcpProxy(("127.0.0.1", port)) for port in (server.port, s3_gateway.port))
        return proxies[0], proxies[1]

    yield make
    for proxy in proxies:
        proxy.close()


def test_whatever_happens_no_acknowledged_row_is_lost(
    make_server: ServerFactory,
    make_program: MakeProgram,
    restore: Restore,
    s3_server: S3Server,
    s3_gateway: Gateway,
    ways: Callable[[ThrowawayServer], tuple[TcpProxy, TcpProxy]],
) -> None:
    dice = random.Random(SEED)
    server = make_server(segment_mb=SEGMENT_MB)
    to_server, to_store = ways(server)
    program = make_program(
        server,
        s3=True,
        PGPORT=str(to_server.port),
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{to_store.port}",
        PGBACKUP_WAL_FLUSH_INTERVAL="0",
    )
    chaos = Chaos(server, program, to_server, to_store, s3_gateway, dice, program.run())
    program.wait_backups(1)
    server.configure(synchronous_standby_names="pgbackup")
    server.reload()
    with writing(server, dice) as writers:
        for number in range(STEPS):
            chaos.step()
            if number % 3 == 2:
                goes_on(writers, chaos)
        goes_on(writers, chaos)
        time.sleep(dice.random())
        chaos.resident.process.send_signal(signal.SIGKILL)
        server.kill()
        commits = {writer.table: writer.stop() for writer in writers}
    chaos.resident.process.wait(10)
    shutil.rmtree(server.data_directory)
    direct = program.with_env(AWS_ENDPOINT_URL=s3_server.endpoint)
    restored = restore(direct, server.major, "--latest", "--no-sync-standby")
    for table, acknowledged in commits.items():
        assert_counter(restored, acknowledged, table)


@contextmanager
def writing(server: ThrowawayServer, dice: random.Random) -> Iterator[list[RandomRows]]:
    """Several writers at once, so that commits are made durable together."""
    writers = [RandomRows(server.conninfo(), f"rows_{n}", random.Random(dice.random())) for n in range(3)]
    for writer in writers:
        writer.start()
    try:
        yield writers
    finally:
        for writer in writers:
            with_end(writer)


def with_end(writer: RandomRows) -> None:
    """A writer that waits for a server that is stopped is left to it."""
    try:
        writer.stop(timeout=1)
    except (TimeoutError, psycopg.Error):
        return


def goes_on(writers: list[RandomRows], chaos: Chaos) -> None:
    """Nothing stands for ever: commits are acknowledged again."""
    before = [len(writer.acknowledged()) for writer in writers]
    deadline = time.monotonic() + PROGRESS_SECONDS
    while any(len(writer.acknowledged()) < count + 3 for writer, count in zip(writers, before, strict=True)):
        said = f"seed {SEED}: no commit is acknowledged after {chaos.done}"
        assert time.monotonic() < deadline, f"{said}\n{chaos.resident.log()}"
        time.sleep(0.02)
