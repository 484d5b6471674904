"""S3 gone or closed under load, and back: Postgres goes on, people are told, and nothing that was written is lost."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.e2e.test_supervisor import alerts, wait_for
from tests.fix_app import MakeProgram, Restore, wait_shipped
from tests.fix_postgres import ServerFactory
from tests.fix_proxy import Gateway, TcpProxy
from tests.fix_receiver import Receiver
from tests.fix_store import S3Server
from tests.workload import CounterWriter, assert_counter

pytestmark = pytest.mark.timeout(300)
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")


def test_s3_is_gone_for_a_while_under_load(
    make_server: ServerFactory,
    make_program: MakeProgram,
    restore: Restore,
    s3_server: S3Server,
    receiver: Receiver,
) -> None:
    proxy = TcpProxy(("127.0.0.1", s3_server.port))
    server = make_server(settings={"max_wal_size": "64MB", "min_wal_size": "32MB"})
    program = make_program(
        server,
        s3=True,
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{proxy.port}",
        PGBACKUP_HEALTH_INTERVAL="5s",
        PGBACKUP_WEBHOOK_URLS=receiver.url,
    )
    try:
        resident = program.run()
        program.wait_backups(1)
        with CounterWriter(server.conninfo(), payload_bytes=8000) as writer:
            writer.wait_more(200)
            proxy.stop_listening()
            before = len(writer.acknowledged())
            time.sleep(30)
            assert len(writer.acknowledged()) > before + 100, "Postgres goes on without the store"
            proxy.pause()
            proxy.listen()
            time.sleep(15)
            proxy.resume()
            writer.wait_more(200)
            commits = writer.stop()
        wait_shipped(program, server, timeout=90)
        opened = {request.body.split(b'"key": "')[1].split(b'"')[0] for request in receiver.wait(1)}
        assert opened & {b"repository:unreachable", b"wal:not-durable", b"stream:interrupted"}
        assert resident.terminate() < 12
        assert_counter(restore(program, server.major, "--latest"), commits)
    finally:
        proxy.close()


def test_credentials_are_revoked_and_given_back(
    make_server: ServerFactory, make_program: MakeProgram, restore: Restore, s3_gateway: Gateway, receiver: Receiver
) -> None:
    server = make_server()
    program = make_program(
        server,
        s3=True,
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{s3_gateway.port}",
        PGBACKUP_HEALTH_INTERVAL="5s",
        PGBACKUP_WEBHOOK_URLS=f"{receiver.url}/hook",
    )
    resident = program.run()
    program.wait_backups(1)
    with CounterWriter(server.conninfo()) as writer:
        writer.wait_more(20)
        denials = [s3_gateway.answer(method, "/", 403, "AccessDenied", times=1_000_000) for method in METHODS]
        told = wait_for(lambda: critical(receiver), resident.log, timeout=90)
        writer.wait_more(20)
        assert "denied" in json.dumps(told).lower(), told
        program("status", exit_code=1)
        assert resident.process.poll() is None
        for denial in denials:
            denial.times = 0
        writer.wait_more(20)
        commits = writer.stop()
    wait_shipped(program, server, timeout=90)
    assert resident.terminate() < 12
    assert_counter(restore(program, server.major, "--latest"), commits)


def critical(receiver: Receiver) -> list[dict[str, Any]]:
    return [each for each in alerts(receiver) if (each["kind"], each["severity"]) == ("opened", "critical")]
