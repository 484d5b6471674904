"""SIGTERM at every stage of the resident process: it ends well, in time, and whatever the rest of the world does."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from tests.fix_app import MakeProgram, Program
from tests.fix_postgres import ServerFactory
from tests.fix_proxy import TcpProxy
from tests.fix_store import S3Server

STOP_SECONDS = 4.0
"""PGBACKUP_STOP_TIMEOUT of these tests; the interpreter needs a moment more to end."""
SLACK_SECONDS = 1.5

MakeProxy = Callable[..., TcpProxy]


def program_of(make_program: MakeProgram, server: ThrowawayServer, **settings: str) -> Program:
    return make_program(server, PGBACKUP_STOP_TIMEOUT=f"{STOP_SECONDS:g}s", **settings)


@pytest.mark.parametrize("template", [False, True], ids=["plain URL", "URL with placeholders"])
def test_before_the_server_can_be_reached(
    template: bool, make_server: ServerFactory, make_program: MakeProgram
) -> None:
    server = make_server(start=False)
    program = program_of(make_program, server)
    if template:
        program.env["PGBACKUP_REPOSITORY"] += "/{system_identifier}"
    resident = program.run()
    resident.wait_log("waiting for the server" if template else "trying again")
    assert resident.terminate() < STOP_SECONDS


@pytest.mark.parametrize("template", [False, True], ids=["plain URL", "URL with placeholders"])
def test_while_the_server_accepts_and_says_nothing(
    template: bool, make_server: ServerFactory, make_program: MakeProgram, tcp_proxy: MakeProxy
) -> None:
    """A connection attempt is a call into libpq that cannot be interrupted: it is left behind."""
    server = make_server()
    proxy = tcp_proxy(("127.0.0.1", server.port))
    proxy.pause()
    program = program_of(make_program, server, PGPORT=str(proxy.port), PGCONNECT_TIMEOUT="60")
    if template:
        program.env["PGBACKUP_REPOSITORY"] += "/{system_identifier}"
    resident = program.run()
    deadline = time.monotonic() + 30
    while not proxy.connections:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert resident.terminate() < STOP_SECONDS + SLACK_SECONDS


def test_while_the_store_does_not_answer(
    make_server: ServerFactory, make_program: MakeProgram, s3_server: S3Server, s3_proxy: TcpProxy
) -> None:
    server = make_server()
    program = program_of(make_program, server, **s3_server.through(s3_proxy.port).env("stopping-silent-store"))
    s3_proxy.pause()
    resident = program.run()
    deadline = time.monotonic() + 30
    while not s3_proxy.connections:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert resident.terminate() < STOP_SECONDS + SLACK_SECONDS


def test_after_the_server_has_stopped(make_server: ServerFactory, make_program: MakeProgram) -> None:
    """In the order in which Compose stops them. The lease is given back, or the next process waits for a dead one."""
    server = make_server()
    program = program_of(make_program, server)
    resident = program.run()
    program.wait_backups(1)
    server.stop()
    resident.wait_log("trying again")
    assert resident.terminate() < STOP_SECONDS
    document = json.loads((Path(program.env["PGBACKUP_REPOSITORY"].removeprefix("file://")) / keys.LEASE).read_text())
    assert document["released"] is True


def test_during_a_base_backup(make_server: ServerFactory, make_program: MakeProgram) -> None:
    """It is abandoned: nothing is sealed, the server keeps no backup running, and the next run takes its own."""
    server = make_server()
    server.execute("CREATE TABLE big AS SELECT repeat(md5(i::text), 30) FROM generate_series(1, 100000) i")
    program = make_program(
        server, s3=True, PGBACKUP_STOP_TIMEOUT=f"{STOP_SECONDS:g}s", PGBACKUP_BACKUP_RATE="5MB/s",
        PGBACKUP_PART_SIZE="8MiB",
    )  # fmt: skip
    resident = program.run()
    _wait_backup_running(server, program)
    time.sleep(1)
    assert resident.terminate() < STOP_SECONDS + SLACK_SECONDS
    assert program.backups() == []
    deadline = time.monotonic() + 10
    while server.execute("SELECT count(*) FROM pg_stat_progress_basebackup") != [(0,)]:
        assert time.monotonic() < deadline, "the server still sends the backup"
        time.sleep(0.2)
    fast = program.with_env()
    del fast.env["PGBACKUP_BACKUP_RATE"]
    fast.run()
    fast.wait_backups(1)


def _wait_backup_running(server: ThrowawayServer, program: Program) -> None:
    deadline = time.monotonic() + 60
    while server.execute("SELECT count(*) FROM pg_stat_progress_basebackup WHERE backup_streamed > 0") != [(1,)]:
        assert time.monotonic() < deadline, program.logs()
        time.sleep(0.1)


def test_during_an_upload_that_hangs(
    make_server: ServerFactory, make_program: MakeProgram, s3_server: S3Server, s3_proxy: TcpProxy
) -> None:
    """What was received cannot be shipped in time: that is said, the exit is good, and the slot keeps the WAL."""
    server = make_server()
    program = program_of(make_program, server, **s3_server.through(s3_proxy.port).env("stopping-hanging-upload"))
    resident = program.run()
    program.wait_backups(1)
    server.execute("CREATE TABLE filler AS SELECT repeat(md5(i::text), 20) AS t FROM generate_series(1, 20000) i")
    s3_proxy.pause()
    server.execute("INSERT INTO filler SELECT repeat(md5(i::text), 20) FROM generate_series(1, 40000) i")
    time.sleep(1)
    assert resident.terminate() < STOP_SECONDS + SLACK_SECONDS
    s3_proxy.resume()
    again = program.run()
    again.wait_log("streaming WAL")
    deadline = time.monotonic() + 60
    text = "SELECT pg_current_wal_flush_lsn() <= max(restart_lsn) FROM pg_replication_slots"
    while server.execute(text) != [(True,)]:
        assert time.monotonic() < deadline, program.logs()
        time.sleep(0.1)


def test_a_second_signal_skips_the_wait(
    make_server: ServerFactory, make_program: MakeProgram, s3_server: S3Server, s3_proxy: TcpProxy
) -> None:
    server = make_server()
    store = s3_server.through(s3_proxy.port).env("stopping-second-signal")
    program = make_program(server, PGBACKUP_STOP_TIMEOUT="60s", **store)
    s3_proxy.pause()
    resident = program.run()
    deadline = time.monotonic() + 30
    while not s3_proxy.connections:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    resident.process.send_signal(signal.SIGTERM)
    resident.wait_log("stopping")
    time.sleep(1)
    assert resident.process.poll() is None
    begin = time.monotonic()
    resident.process.send_signal(signal.SIGTERM)
    assert resident.process.wait(10) == 130
    assert time.monotonic() - begin < 1
