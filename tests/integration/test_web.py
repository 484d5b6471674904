"""The pages over real sockets: what they say, what they refuse, and how the server starts and ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from pgbackup import logs
from pgbackup.config.listen import ListenAddress
from pgbackup.core.status import OpenFinding, StatusSnapshot, Verdict
from pgbackup.core.worker_health import WorkerState
from pgbackup.errors import ConfigError
from pgbackup.web.pages import WebSources
from pgbackup.web.server import WebServer
from tests.made_status import FINDING, FULL, NOTHING_KNOWN, NOW

LOOPBACK = ListenAddress("127.0.0.1", 0)


@dataclass
class World:
    """What the pages show, and a client for them."""

    status: StatusSnapshot | None = FULL
    workers: list[WorkerState] = field(default_factory=lambda: list(FULL.workers))
    now: datetime = NOW
    port: int = 0

    def sources(self) -> WebSources:
        return WebSources(lambda: self.status, lambda: self.workers, lambda: self.now, "1.2.3")

    def ask(self, path: str, method: str = "GET") -> tuple[int, str, http.client.HTTPMessage]:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            client.request(method, path)
            answer = client.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            client.close()

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            answer = b""
            # What is refused early is not read to its end, which the client may see as a reset.
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                connection.sendall(request)
                while block := connection.recv(65536):
                    answer += block
            return answer


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    with WebServer(LOOPBACK, made.sources()) as server:
        made.port = server.address.port
        yield made


def test_livez_looks_at_the_workers_themselves(world: World) -> None:
    assert world.ask("/livez")[:2] == (200, "alive\n")
    world.status = None
    assert world.ask("/livez")[0] == 200, "no status is no reason to restart"
    world.workers[0] = replace(world.workers[0], idle_seconds=1e4)
    assert world.ask("/livez")[:2] == (503, "not alive\nworker wal hangs\n")


@pytest.mark.parametrize(
    ("verdict", "code"), [(Verdict.OK, 200), (Verdict.WARNING, 200), (Verdict.CRITICAL, 503), (Verdict.UNKNOWN, 503)]
)
def test_readyz_is_the_verdict(world: World, verdict: Verdict, code: int) -> None:
    world.status = replace(FULL, verdict=verdict)
    status, body, _ = world.ask("/readyz")
    assert status == code
    assert body.splitlines()[0] == verdict


def test_readyz_says_why(world: World) -> None:
    world.status = replace(FULL, verdict=Verdict.CRITICAL, findings=(OpenFinding(FINDING, NOW),))
    assert world.ask("/readyz")[:2] == (503, "critical\ncritical: WAL is missing\n")
    world.status = None
    assert world.ask("/readyz")[:2] == (503, "unknown\nno health check has ended yet\n")


def test_an_old_green_is_not_green(world: World) -> None:
    world.now = NOW + timedelta(seconds=600)
    assert world.ask("/readyz")[:2] == (503, "unknown\nthe last health check was 600 s ago\n")
    assert json.loads(world.ask("/status.json")[1])["verdict"] == "unknown"
    assert "pgbackup_up 0.0" in world.ask("/metrics")[1]


def test_status_and_metrics(world: World) -> None:
    status, body, headers = world.ask("/status.json")
    assert (status, headers["Content-Type"], json.loads(body)["timeline"]) == (200, "application/json", 3)
    status, body, headers = world.ask("/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert 'pgbackup_build_info{version="1.2.3"} 1.0' in body
    world.status = NOTHING_KNOWN
    assert world.ask("/status.json")[0] == 200


def test_head_has_no_body(world: World) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/status.json"):
        status, body, headers = world.ask(path, "HEAD")
        assert (status, body) == (200, "")
        assert int(headers["Content-Length"]) > 0


def test_what_is_not_there_and_what_is_not_allowed(world: World) -> None:
    for path in ("/", "/metrics/", "/../etc/passwd", "/status"):
        status, body, _ = world.ask(path)
        assert status == 404
        assert "/metrics" in body
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        status, _, headers = world.ask("/metrics", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert world.ask("/metrics?x=1")[0] == 200


def test_headers_tell_nothing_about_the_server(world: World) -> None:
    for path in ("/livez", "/nothing"):
        headers = world.ask(path)[2]
        assert "Server" not in headers
        assert "Via" not in headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 17000 + b"\r\n\r\n", b"431"),
        (b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"413"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
    ids=["long header", "large body", "nonsense"],
)
def test_bad_requests_are_refused(world: World, request_bytes: bytes, code: bytes) -> None:
    answer = world.raw(request_bytes)
    assert not answer or answer.split(b" ")[1] == code
    assert world.ask("/livez")[0] == 200
    assert b"Traceback" not in answer
    assert b"waitress" not in answer.lower()


def test_a_page_that_fails_shows_no_traceback(world: World) -> None:
    world.now = None  # type: ignore[assignment]
    status, body, _ = world.ask("/readyz")
    assert (status, body) == (500, "this page failed; the log says why\n")


def test_no_secret_is_on_a_page(world: World) -> None:
    words = set(logs.redact._words)
    logs.redact.add(["hunter2hunter2"])
    try:
        leaky = OpenFinding(replace(FINDING, summary="refused hunter2hunter2"), NOW)
        world.status = replace(FULL, verdict=Verdict.CRITICAL, findings=(leaky,))
        for path in ("/livez", "/readyz", "/metrics", "/status.json"):
            body = world.ask(path)[1]
            assert "hunter2" not in body
            assert ("refused ********" in body) == (path in ("/readyz", "/status.json"))
    finally:
        logs.redact._words = words
        logs.redact.add(())


def test_a_port_in_use_is_said_clearly(world: World) -> None:
    with pytest.raises(ConfigError) as caught:
        WebServer(ListenAddress("127.0.0.1", world.port), World().sources()).start()
    assert caught.value.message == f"PGBACKUP_HTTP: cannot listen on 127.0.0.1:{world.port}"
    assert "in use" in caught.value.detail
    assert "PGBACKUP_HTTP=off" in caught.value.hint


def test_an_address_that_does_not_exist_is_said_clearly() -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        WebServer(ListenAddress("203.0.113.1", 0), World().sources()).start()
    with pytest.raises(ConfigError, match="cannot listen on"):
        WebServer(ListenAddress("no-such-host.invalid", 0), World().sources()).start()


def test_a_server_that_has_closed_everything_already_is_stopped_without_an_error(world: World) -> None:
    """A request that ended woke it between the two steps of the call that closes it."""
    server = WebServer(LOOPBACK, world.sources())
    server.start()
    server._server.trigger.pull_trigger(server._close_all)
    assert server._thread is not None
    server._thread.join(10)
    server.stop()


def test_it_stops_in_time_with_clients_connected_and_can_be_started_again() -> None:
    world = World()
    before = {thread.name for thread in threading.enumerate()}
    server = WebServer(LOOPBACK, world.sources())
    server.start()
    port = server.address.port
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
    idle[0].sendall(b"GET /livez HTTP/1.1\r\n")
    begin = time.monotonic()
    server.stop()
    assert time.monotonic() - begin < 2
    server.stop()
    for connection in idle:
        connection.close()
    assert {thread.name for thread in threading.enumerate()} <= before
    with WebServer(ListenAddress("127.0.0.1", port), world.sources()):
        world.port = port
        assert world.ask("/livez")[0] == 200
