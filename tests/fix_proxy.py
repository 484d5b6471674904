"""Faults on the way to a real server: a TCP proxy, and a gateway that answers some HTTP requests itself.

proxy.cut_after(1000)      the next connection breaks when 1000 bytes went to the client
proxy.cut_before_bodies(1) the next PUT breaks between its headers and its body
proxy.pause()              nothing moves, connections stay open; resume() lets go on
proxy.stop_listening()     connections are refused
gateway.answer(...)        a chosen request gets a made-up answer, or none after it took effect
gateway.deaf = True        puts lose their conditions, as on a store that has never heard of them
gateway.keeps = True       each key of a DeleteObjects is denied, in AWS' words
"""

from __future__ import annotations

import http.client
import http.server
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from urllib.parse import unquote

import pytest

from tests.fix_store import S3Server

CHUNK_BYTES = 16 << 10

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""


class TcpProxy:
    """Forwards connections to one server and misbehaves when told to."""

    def __init__(self, target: Address) -> None:
        self.connections = 0
        self.bytes_down = 0
        self.delay_seconds = 0.0
        """Waited before each piece of up to 16 KiB, in both directions."""
        self._target = target
        self._moving = threading.Event()
        self._moving.set()
        self._cuts: list[int] = []
        self._cut_before_bodies = 0
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        self._listener: socket.socket | None = None
        self.port = 0
        self.listen()

    def pause(self) -> None:
        self._moving.clear()

    def resume(self) -> None:
        self._moving.set()

    def cut_after(self, down_bytes: int, *, times: int = 1) -> None:
        """Break each of the next ``times`` connections once so many bytes went to the client."""
        with self._lock:
            self._cuts += [down_bytes] * times

    def cut_before_bodies(self, times: int) -> None:
        """Break the connection of each of the next ``times`` PUT requests between its headers and its body."""
        with self._lock:
            self._cut_before_bodies = times

    def cut(self) -> None:
        """Break all connections now."""
        with self._lock:
            broken = list(self._open)
        for one in broken:
            _shut(one)

    def stop_listening(self) -> None:
        """Refuse new connections, and break those there are."""
        if self._listener is not None:
            _shut(self._listener)
            self._listener.close()
            self._listener = None
        self.cut()

    def listen(self) -> None:
        """Take connections, on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def close(self) -> None:
        self._closed = True
        self._moving.set()
        self.stop_listening()
        for thread in self._threads:
            thread.join(10)

    def _start(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            try:
                server = _connect(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self.connections += 1
                self._open |= {client, server}
                limit = self._cuts.pop(0) if self._cuts else None
            done = threading.Barrier(2, action=partial(self._end, client, server))
            self._start(self._pump, client, server, None, False, done)
            self._start(self._pump, server, client, limit, True, done)

    def _pump(
        self, source: socket.socket, sink: socket.socket, limit: int | None, down: bool, done: threading.Barrier
    ) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._moving.wait()
                if self.delay_seconds:
                    time.sleep(self.delay_seconds)
                if not down and self._takes_body(data):
                    data, limit = data[: data.index(b"\r\n\r\n") + 4], 0
                elif limit is not None:
                    data = data[:limit]
                    limit -= len(data)
                sink.sendall(data)
                if down:
                    self.bytes_down += len(data)
                if limit == 0:
                    break
        _shut(source)
        _shut(sink)
        done.wait()

    def _takes_body(self, data: bytes) -> bool:
        with self._lock:
            if not self._cut_before_bodies or not data.startswith(b"PUT ") or b"\r\n\r\n" not in data:
                return False
            self._cut_before_bodies -= 1
            return True

    def _end(self, *pair: socket.socket) -> None:
        with self._lock:
            self._open -= set(pair)
        for one in pair:
            one.close()


@dataclass
class Answer:
    """What the gateway says instead of the server, and to which requests."""

    method: str
    match: str
    """Must occur in the path with its query, or in a header line."""
    status: int = 0
    """0: no answer at all, the connection just closes."""
    body: str = ""
    times: int = 1
    forwarded: bool = False
    """The server gets the request and acts on it; only its answer is lost."""
    seen: int = field(default=0, init=False)


class Gateway:
    """An HTTP server in front of an S3 server; passes on what it was not told to answer."""

    def __init__(self, target: S3Server) -> None:
        self.deaf = False
        self.keeps = False
        self.varies = False
        """Whether HEAD shows other ETags than every other answer."""
        self.target = target
        self.requests: list[str] = []
        """``METHOD path?query`` of every request, in order."""
        self._answers: list[Answer] = []
        self._lock = threading.Lock()
        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"gateway": self})
        )
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="gateway", daemon=True)
        self._thread.start()

    def answer(
        self, method: str, match: str, status: int = 0, code: str = "", *, times: int = 1, forwarded: bool = False
    ) -> Answer:
        """Answer the next ``times`` requests that match with an S3 error; ``code`` is its code, or a whole body."""
        body = code if code.startswith("<") or not code else _error_body(code)
        answer = Answer(method, match, status, body, times, forwarded)
        with self._lock:
            self._answers.append(answer)
        return answer

    def take(self, method: str, path: str, headers: str) -> Answer | None:
        with self._lock:
            self.requests.append(f"{method} {path}")
            for answer in self._answers:
                if answer.method == method and answer.times > 0 and (answer.match in path or answer.match in headers):
                    answer.times -= 1
                    answer.seen += 1
                    return answer
        return None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def s3_proxy(s3_server: S3Server) -> Iterator[TcpProxy]:
    """A TCP proxy in front of SeaweedFS over http."""
    proxy = TcpProxy(("127.0.0.1", s3_server.port))
    yield proxy
    proxy.close()


@pytest.fixture
def s3_gateway(s3_server: S3Server) -> Iterator[Gateway]:
    """A gateway in front of SeaweedFS over http."""
    gateway = Gateway(s3_server)
    yield gateway
    gateway.close()


@pytest.fixture
def tcp_proxy() -> Iterator[Callable[[Address], TcpProxy]]:
    """A function: a proxy in front of any address, a Postgres server's too."""
    proxies: list[TcpProxy] = []

    def make(target: Address) -> TcpProxy:
        proxies.append(TcpProxy(target))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection to a gateway."""

    protocol_version = "HTTP/1.1"
    gateway: Gateway

    def serve(self) -> None:
        try:
            self._serve()
        except (OSError, http.client.HTTPException):
            # One of the two ends broke the connection: so does the gateway to the other.
            self.close_connection = True

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.gateway.take(self.command, self.path, str(self.headers))
        if self.gateway.keeps and self.command == "POST" and self.path.endswith("?delete"):
            self._reply(200, [("Content-Type", "application/xml")], _denied_keys(body).encode())
            return
        if answer is None or answer.forwarded:
            status, headers, content = self._forward(body)
            if answer is None:
                if self.gateway.varies and self.command == "HEAD":
                    headers = [(name, '"another"' if name.lower() == "etag" else value) for name, value in headers]
                self._reply(status, headers, content)
                return
        if answer.status == 0:
            self.close_connection = True
            return
        self._reply(answer.status, [("Content-Type", "application/xml")], answer.body.encode())

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        target = self.gateway.target
        # As it came: the signature covers the Host that the client used.
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        path = self.path
        if self.gateway.deaf and self.command == "PUT" and "If-None-Match" in headers:
            path, headers = _presigned_put(target, path), {}
        with closing(http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)) as server:
            server.request(self.command, path, body, headers)
            if len(body) < int(self.headers.get("Content-Length", 0)):
                raise ConnectionError("the client broke off in the middle of its request")
            with server.getresponse() as response:
                return response.status, response.getheaders(), response.read()

    def _reply(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status, HTTPStatus(status).phrase)
        length = str(len(content))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value
            elif name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _presigned_put(target: S3Server, path: str) -> str:
    """The path of a plain put of the same object, signed anew: a condition cannot be taken out of a signed request."""
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=target.endpoint,
        aws_access_key_id=target.access_key,
        aws_secret_access_key=target.secret_key,
        region_name="us-east-1",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    bucket, _, key = unquote(path.partition("?")[0]).lstrip("/").partition("/")
    url = client.generate_presigned_url("put_object", {"Bucket": bucket, "Key": key})
    client.close()
    return url.removeprefix(target.endpoint)


def _error_body(code: str) -> str:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>made up by the test</Message></Error>'


def _denied_keys(body: bytes) -> str:
    """The answer to a DeleteObjects without s3:DeleteObject: 200, and an error for each key.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
    """
    keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
    denied = "<Code>AccessDenied</Code><Message>Access Denied</Message>"
    return f"<DeleteResult>{''.join(f'<Error><Key>{key}</Key>{denied}</Error>' for key in keys)}</DeleteResult>"


def _connect(target: Address) -> socket.socket:
    if isinstance(target, tuple):
        return socket.create_connection(target, timeout=None)
    one = socket.socket(socket.AF_UNIX)
    one.connect(target)
    return one


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
