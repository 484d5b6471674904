"""A receiver of HTTP requests on loopback: keeps what came byte for byte, and answers as the test says."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """``answers`` are used up one a request, then 200; each is (status, headers, seconds before it answers)."""

    port: int = 0
    requests: list[Received] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str], float]] = field(default_factory=list)
    answer_body: bytes = b"{}"
    echo: bool = False
    """Answer with the address that was asked for, as some servers do in their errors."""
    default: tuple[int, dict[str, str], float] = (200, {}, 0.0)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def dsn(self) -> str:
        """A Sentry DSN of this receiver."""
        return f"http://0123456789abcdef0123456789abcdef@127.0.0.1:{self.port}/42"

    def wait(self, count: int, timeout: float = 20) -> list[Received]:
        """Wait until so many requests have come."""
        deadline = time.monotonic() + timeout
        while len(self.requests) < count:
            assert time.monotonic() < deadline, f"only {len(self.requests)} of {count} requests came"
            time.sleep(0.02)
        return list(self.requests)

    def take(self, request: Received) -> tuple[int, dict[str, str], float]:
        with self.lock:
            self.requests.append(request)
            return self.answers.pop(0) if self.answers else self.default


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, delay = self.receiver.take(Received(self.command, self.path, dict(self.headers), body))
        time.sleep(delay)
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            answer = f"Cannot POST {self.path}".encode() if self.receiver.echo else self.receiver.answer_body
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
        except OSError:
            pass

    do_GET = do_POST

    def log_message(self, *_: object) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        # A client may leave before it has read everything.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """One receiver, for the length of a test."""
    found = Receiver()
    handler = type("Handler", (_Handler,), {"receiver": found})
    server = _Server(("127.0.0.1", 0), handler)
    found.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join(5)
