"""A server that hangs, or answers with what is not the protocol: errors of ours, and nothing else stands still."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from pgbackup.core.lsn import Lsn
from pgbackup.errors import ConnectionLost, PostgresError
from pgbackup.postgres import replication
from pgbackup.postgres.replication import ReplicationConnection

_AUTHENTICATED = b"R" + struct.pack(">ii", 8, 0)
_VERSION = b"server_version\x0016.0\x00"
_WELCOME = b"".join(
    (
        _AUTHENTICATED,
        b"S" + struct.pack(">i", 4 + len(_VERSION)) + _VERSION,
        b"K" + struct.pack(">iii", 12, 1, 1),
        b"Z" + struct.pack(">i", 5) + b"I",
    )
)
_COPY_BOTH = b"W" + struct.pack(">ibh", 7, 0, 0)


class ScriptedServer:
    """Lets one client in and answers its first query with given bytes, or hangs before one of the two.

    https://www.postgresql.org/docs/current/protocol-message-formats.html
    """

    def __init__(self) -> None:
        self.welcome = _WELCOME
        self.answer = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def conninfo(self) -> str:
        port = self._listener.getsockname()[1]
        return f"host=127.0.0.1 port={port} user=pgbackup sslmode=disable gssencmode=disable"

    def close(self) -> None:
        self._thread.join(20)
        self._listener.close()

    def _serve(self) -> None:
        self._listener.settimeout(20)
        with self._listener.accept()[0] as client, suppress(OSError):
            client.settimeout(4)
            client.recv(4096)
            client.sendall(self.welcome)
            client.recv(4096)
            client.sendall(self.answer)
            client.recv(4096)


@contextmanager
def other_work() -> Iterator[list[float]]:
    """Another thread that does something every 50 ms, and notes when."""
    done, beats = threading.Event(), list[float]()

    def beat() -> None:
        while not done.wait(0.05):
            beats.append(time.monotonic())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield beats
    finally:
        done.set()
        thread.join()


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.close()


@pytest.mark.parametrize("payload", [b"?" * 40, b"w", b"k" + bytes(3)], ids=["unknown", "short-w", "short-k"])
def test_an_unknown_message_of_the_wal_stream_is_an_error_of_ours(scripted: ScriptedServer, payload: bytes) -> None:
    scripted.answer = _COPY_BOTH + b"d" + struct.pack(">i", 4 + len(payload)) + payload
    connection = ReplicationConnection.connect(scripted.conninfo, application_name="pgbackup")
    try:
        connection.start_streaming(Lsn(0x1000000), 1, None)
        with pytest.raises(PostgresError, match="WAL stream cannot be read") as caught:
            _first_message(connection)
        assert caught.value.hint
    finally:
        connection.close()


def test_a_server_that_hangs_while_we_connect_stops_no_other_thread(scripted: ScriptedServer) -> None:
    """libpq's own way to connect waits with the interpreter's lock held: uploads, pages and SIGTERM stood still."""
    scripted.welcome = b""
    with other_work() as beats, pytest.raises(ConnectionLost):
        ReplicationConnection.connect(f"{scripted.conninfo} connect_timeout=2", application_name="pgbackup")
    assert len(beats) > 15


def test_a_server_that_takes_no_cancel_is_not_waited_for(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replication, "CANCEL_TIMEOUT_SECONDS", 1.0)
    connection = ReplicationConnection.connect(scripted.conninfo, application_name="pgbackup")
    try:
        begin = time.monotonic()
        with other_work() as beats:
            connection.cancel()
        assert time.monotonic() - begin < 10
        assert len(beats) > 5
    finally:
        connection.close()


def test_a_command_without_an_answer_ends(scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "ANSWER_TIMEOUT_SECONDS", 0.3)
    connection = ReplicationConnection.connect(scripted.conninfo, application_name="pgbackup")
    try:
        with pytest.raises(ConnectionLost, match="did not answer"):
            connection.identify()
    finally:
        connection.close()


def _first_message(connection: ReplicationConnection) -> object:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        message = connection.poll()
        if message is not None:
            return message
        time.sleep(0.01)
    raise AssertionError("nothing arrived")
