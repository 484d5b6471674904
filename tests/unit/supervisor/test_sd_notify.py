"""What systemd hears, over a real datagram socket: ready, alive while no worker hangs, stopping."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pgbackup.core.worker_health import WorkerState
from pgbackup.supervisor.sd_notify import NoticeSources, NotifySocket, ServiceNotices
from tests.made_status import FULL, NOTHING_KNOWN, NOW

LIVES = WorkerState("wal", alive=True, idle_seconds=1, silent_after_seconds=300)
HANGS = replace(LIVES, idle_seconds=301)


class Systemd:
    """The receiving end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def hear(self, timeout: float = 5) -> dict[str, str]:
        self._socket.settimeout(timeout)
        lines = self._socket.recv(65536).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def hear_until(self, name: str) -> list[dict[str, str]]:
        """Everything up to the first message with that name."""
        heard = [self.hear()]
        deadline = time.monotonic() + 5
        while name not in heard[-1]:
            assert time.monotonic() < deadline, heard
            heard.append(self.hear())
        return heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@pgbackup-test-{secrets.token_hex(8)}"
    systemd = Systemd(name)
    yield systemd
    systemd.close()


def sources(workers: list[WorkerState], stop: threading.Event | None = None) -> NoticeSources:
    return NoticeSources(lambda: workers, lambda: FULL, lambda: NOW, stop or threading.Event(), 10)


def notices(systemd: Systemd, given: NoticeSources, watchdog: float | None = 0.1) -> ServiceNotices:
    return ServiceNotices(NotifySocket(systemd.address, watchdog), given)


def test_ready_then_alive_then_stopping_with_the_time_it_takes(systemd: Systemd) -> None:
    stop = threading.Event()
    with notices(systemd, sources([LIVES], stop)):
        assert systemd.hear()["READY"] == "1"
        assert systemd.hear()["WATCHDOG"] == "1"
        stop.set()
        last = systemd.hear_until("STOPPING")[-1]
        assert last == {"STOPPING": "1", "STATUS": "stopping", "EXTEND_TIMEOUT_USEC": "15000000"}
        assert systemd.hear() == {"WATCHDOG": "1"}, "the watchdog must not bite while it stops"


def test_the_watchdog_is_not_fed_while_a_worker_hangs_and_is_when_it_goes_on(systemd: Systemd) -> None:
    workers = [HANGS]
    with notices(systemd, sources(workers)):
        assert systemd.hear() == {"READY": "1", "STATUS": "hangs: wal"}
        assert [systemd.hear() for _ in range(3)] == [{"STATUS": "hangs: wal"}] * 3
        workers[:] = [LIVES]
        assert systemd.hear_until("WATCHDOG")


def test_a_worker_that_hangs_while_it_stops_is_not_hidden(systemd: Systemd) -> None:
    stop = threading.Event()
    with notices(systemd, sources([HANGS], stop)):
        stop.set()
        systemd.hear_until("STOPPING")
        with pytest.raises(TimeoutError):
            systemd.hear(timeout=0.4)


def test_without_a_watchdog_only_the_status_is_told(systemd: Systemd) -> None:
    with ServiceNotices(NotifySocket(systemd.address), sources([LIVES])):
        first = systemd.hear()
        assert set(first) == {"READY", "STATUS"}


@pytest.mark.parametrize(
    ("snapshot", "text"),
    [
        (None, "unknown: no current health check"),
        (NOTHING_KNOWN, "unknown: no current health check"),
        (FULL, "ok: WAL is missing"),
        (replace(FULL, findings=()), "ok: recoverable to 2026-03-01 11:59:55+00:00"),
        (replace(FULL, findings=(), latest_recoverable=None), "ok"),
    ],
)
def test_the_status_is_one_line(tmp_path: Path, snapshot: object, text: str) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    given = replace(sources([LIVES]), read_status=lambda: snapshot)
    with ServiceNotices(NotifySocket(systemd.address), given):
        assert systemd.hear()["STATUS"] == text
    systemd.close()


def test_a_finding_of_several_lines_cannot_forge_another_message(tmp_path: Path) -> None:
    bad = replace(FULL.findings[0], finding=replace(FULL.findings[0].finding, summary="x\nMAINPID=1\nWATCHDOG=trigger"))
    systemd = Systemd(str(tmp_path / "notify"))
    given = replace(sources([LIVES]), read_status=lambda: replace(FULL, findings=(bad,)))
    with ServiceNotices(NotifySocket(systemd.address), given):
        assert systemd.hear() == {"READY": "1", "STATUS": "ok: x MAINPID=1 WATCHDOG=trigger"}
    systemd.close()


def test_a_finding_that_is_no_text_does_not_end_the_watchdog(systemd: Systemd) -> None:
    """A document may name a file that no UTF-8 can hold; a thread that died of it had systemd kill the service."""
    bad = replace(FULL.findings[0], finding=replace(FULL.findings[0].finding, summary="damaged: x\ud800\x1b[2J"))
    with notices(systemd, replace(sources([LIVES]), read_status=lambda: replace(FULL, findings=(bad,)))):
        assert systemd.hear()["STATUS"] == "ok: damaged: x\\ud800\\x1b[2J"
        assert systemd.hear()["WATCHDOG"] == "1"


def test_nobody_who_listens_harms_nothing(tmp_path: Path) -> None:
    gone = NotifySocket(str(tmp_path / "gone"), 0.05)
    assert not gone.send(READY="1")
    with ServiceNotices(gone, sources([LIVES])):
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": ""}, None),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, None),
        ({"NOTIFY_SOCKET": "/run/n"}, NotifySocket("/run/n")),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "60000000"}, NotifySocket("@n", 60.0)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, NotifySocket("/n", 60.0)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, NotifySocket("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"}, NotifySocket("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, NotifySocket("/n")),
    ],
)
def test_what_systemd_puts_into_the_environment(environ: dict[str, str], expected: NotifySocket | None) -> None:
    assert NotifySocket.from_environ(environ, 7) == expected


def test_the_clock_decides_whether_the_status_is_current(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    given = replace(sources([LIVES]), now=lambda: datetime(2030, 1, 1, tzinfo=UTC))
    with ServiceNotices(NotifySocket(systemd.address), given):
        assert systemd.hear()["STATUS"] == "unknown: no current health check"
    systemd.close()
