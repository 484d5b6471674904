"""One request is bounded as a whole, whatever the peer does, and says nothing of its address."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import trustme

from pgbackup.alerts.address import host_of, secret_parts, without_address, wrong_http
from pgbackup.alerts.base import DeliveryError
from pgbackup.alerts.http_sender import HttpSender
from tests.fix_receiver import Receiver

TOKEN = "T0KEN-which-nobody-may-see"
Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(what)``: a server on loopback that reads a request and lets ``what`` do the rest; returns its port."""
    with ExitStack() as stack:

        def make(what: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> str:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=_accept, args=(listener, what, context), daemon=True)
            thread.start()
            stack.callback(thread.join, 5)
            stack.callback(_wake, listener.getsockname())
            return str(listener.getsockname()[1])

        yield make


def _accept(listener: socket.socket, what: Callable[[socket.socket], None], context: ssl.SSLContext | None) -> None:
    try:
        peer = listener.accept()[0]
        peer.settimeout(5)
        with context.wrap_socket(peer, server_side=True) if context else peer as talking:
            request = b""
            while not request.endswith(b"{}"):
                if not (block := talking.recv(65536)):
                    return
                request += block
            what(talking)
    except OSError:
        pass


def _wake(address: tuple[str, int]) -> None:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        pass


def trickle(beginning: bytes, drop: bytes = b"a") -> Callable[[socket.socket], None]:
    """Sends a byte now and then, for ever."""

    def send(peer: socket.socket) -> None:
        peer.sendall(beginning)
        while True:
            peer.sendall(drop)
            time.sleep(0.05)

    return send


@pytest.fixture
def sender() -> Iterator[HttpSender]:
    made = HttpSender()
    yield made
    made.close()


@pytest.fixture
def impatient() -> Iterator[HttpSender]:
    """Its whole request has half a second, which a loaded machine may need for an answer that comes at once."""
    made = HttpSender(total_seconds=0.5)
    yield made
    made.close()


def failure(sender: HttpSender, url: str) -> DeliveryError:
    begin = time.monotonic()
    with pytest.raises(DeliveryError) as caught:
        sender.post(url, b"{}", {})
    assert time.monotonic() - begin < 10, "and not the half minute that a request may take"
    assert TOKEN not in f"{caught.value!r} {caught.value}"
    assert TOKEN not in "".join(traceback.format_exception(caught.value)).replace(url, "")
    return caught.value


@pytest.mark.parametrize(
    ("beginning", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", ("no whole answer within 0 s",)),
        # Where even the headers are late, there is no status to tell.
        (b"HTTP/1.1 500 No\r\n\r\n", ("HTTP 500: a", "no whole answer within 0 s")),
    ],
)
def test_an_answer_that_trickles_is_cut_off(
    serve: Serve, impatient: HttpSender, beginning: bytes, expected: tuple[str, ...]
) -> None:
    exc = failure(impatient, f"http://127.0.0.1:{serve(trickle(beginning))}/{TOKEN}")
    assert str(exc).startswith(expected)
    assert exc.retryable


@pytest.fixture
def authority(tmp_path: Path) -> ssl.SSLContext:
    """A certificate for 127.0.0.1, trusted by nobody yet; its authority lies in ``tmp_path``."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_tls_is_verified(serve: Serve, sender: HttpSender, authority: ssl.SSLContext) -> None:
    port = serve(lambda peer: peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n"), authority)
    exc = failure(sender, f"https://127.0.0.1:{port}/{TOKEN}")
    assert "CERTIFICATE_VERIFY_FAILED" in str(exc)


def test_an_answer_that_trickles_through_tls_is_cut_off(
    serve: Serve,
    sender: HttpSender,
    impatient: HttpSender,
    authority: ssl.SSLContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    port = serve(trickle(b"HTTP/1.1 200 OK\r\nX-Slow: "), authority)
    assert str(failure(impatient, f"https://127.0.0.1:{port}/{TOKEN}")) == "no whole answer within 0 s"
    port = serve(lambda peer: peer.sendall(b"HTTP/1.1 204 No Content\r\n\r\n"), authority)
    assert sender.post(f"https://127.0.0.1:{port}/{TOKEN}", b"{}", {}).text == "HTTP 204"


def test_an_endless_answer_is_not_read(serve: Serve) -> None:
    endless = serve(trickle(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 65536))
    sender = HttpSender()
    assert str(failure(sender, f"http://127.0.0.1:{endless}/{TOKEN}")) == "HTTP 500"
    sender.close()


def test_what_is_no_http_is_not_quoted(serve: Serve, sender: HttpSender) -> None:
    port = serve(lambda peer: peer.sendall(f"nonsense about {TOKEN}\r\n\r\n".encode()))
    assert str(failure(sender, f"http://127.0.0.1:{port}/{TOKEN}")) == "RemoteProtocolError"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("no_service", "HTTP 404: no_service"),
        ('{"message": "Unknown Webhook", "code": 10015}', 'HTTP 404: {"message": "Unknown Webhook", "code": 10015}'),
        (f"Cannot POST /services/{TOKEN.lower()}?sig=s3cr3t%2Fx", "HTTP 404: Cannot POST ...?..."),
        ("<p>gone</p>", "HTTP 404"), ("x" * 500, "HTTP 404"), ("two\nlines", "HTTP 404"), ("", "HTTP 404"),
    ],
)  # fmt: skip
def test_what_the_receiver_says_is_shown_when_it_is_a_word(
    receiver: Receiver, sender: HttpSender, body: str, expected: str
) -> None:
    receiver.answers.append((404, {}, 0.0))
    receiver.answer_body = body.encode()
    assert str(failure(sender, f"{receiver.url}/services/{TOKEN}?sig=s3cr3t%2Fx")) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("7", 7), ("0.5", 0.5), ("-3", 0), ("soon", None), ("inf", None), ("nan", None), ("", None),
        ("Tue, 03 Mar 2026 03:04:05 GMT", 0),
    ],
)  # fmt: skip
def test_when_to_come_again(receiver: Receiver, sender: HttpSender, given: str, expected: float | None) -> None:
    receiver.answers.append((429, {"Retry-After": given}, 0.0))
    assert failure(sender, receiver.url).retry_after == expected


def test_a_date_to_come_again() -> None:
    from pgbackup.alerts.http_sender import _retry_after

    assert 3500 < (_retry_after(format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)) or 0) <= 3600


@pytest.mark.parametrize(
    "url",
    [f"http://{'x' * 70}.example/{TOKEN}", f"http://[::1/{TOKEN}", f"ftp://host/{TOKEN}", f"http://h\x00/{TOKEN}"],
)
def test_what_is_no_address(sender: HttpSender, url: str) -> None:
    assert wrong_http(url)
    exc = failure(sender, url)
    assert (str(exc), exc.retryable) == ("the address is not one", False)


@pytest.mark.parametrize(
    "url", ["https://hooks.slack.com/services/T/B/x", "http://user:pw@[::1]:8080/?a=b", "http://ü.de"]
)
def test_what_is_an_address(url: str) -> None:
    assert wrong_http(url) == ""


def test_what_of_an_address_is_secret() -> None:
    url = "https://user:pass%21word@host.example:8443/hooks/T0KEN/x?sig=s%2Fecret&v=1#frag"
    assert {"user", "pass!word", "T0KEN", "s/ecret", "s%2Fecret", "/hooks/T0KEN/x"} <= secret_parts(url)
    shown = without_address(f"at {url}: refused", url)
    assert shown == "at https://...@host.example:8443...?...#...: refused"
    assert host_of(url) == "host.example"
    assert host_of("https://[bad/T0KEN") == "?"
