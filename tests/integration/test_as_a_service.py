"""`pgbackup run` under a service manager: systemd hears of it, health checks find it. It needs no server for that."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Service:
    """A `pgbackup run` whose server is away, and the socket on which it tells of itself."""

    process: subprocess.Popen[bytes]
    env: dict[str, str]
    notices: socket.socket
    port: int

    def hear_until(self, text: str) -> list[str]:
        heard = [self.notices.recv(65536).decode()]
        while text not in heard[-1].split("\n"):
            heard.append(self.notices.recv(65536).decode())
        return heard

    def livez(self, *arguments: str, **env: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pgbackup", *arguments],
            env=self.env | env, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notify"))
        notices.settimeout(30)
        port = free_port()
        env = {
            "PATH": os.environ["PATH"],
            "PGHOST": "127.0.0.1", "PGPORT": str(free_port()),
            "PGBACKUP_REPOSITORY": f"file://{tmp_path}/repository",
            "PGBACKUP_HTTP": f"127.0.0.1:{port}", "PGBACKUP_STOP_TIMEOUT": "3s",
        }  # fmt: skip
        watched = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        process = subprocess.Popen(
            [sys.executable, "-m", "pgbackup", "run"],
            env=env | watched, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        yield Service(process, env, notices, port)
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(10)


def test_systemd_hears_that_it_is_ready_alive_and_stopping(service: Service) -> None:
    assert service.hear_until("READY=1")
    assert service.hear_until("WATCHDOG=1")
    service.process.send_signal(signal.SIGTERM)
    assert "EXTEND_TIMEOUT_USEC=8000000" in service.hear_until("STOPPING=1")[-1]
    assert service.process.wait(10) == 0


def test_livez_finds_it_by_the_same_settings(service: Service, tmp_path: Path) -> None:
    service.hear_until("READY=1")
    assert service.livez("livez") == (0, "alive\n")
    elsewhere = {"PGBACKUP_HTTP": ""}
    assert service.livez("--http", f"0.0.0.0:{service.port}", "livez", **elsewhere) == (0, "alive\n")
    toml = tmp_path / "pgbackup.toml"
    toml.write_text(f'http = "127.0.0.1:{service.port}"\n')
    assert service.livez("--config", str(toml), "livez", **elsewhere) == (0, "alive\n")
    assert service.livez("livez", PGBACKUP_CONFIG=str(toml), **elsewhere) == (0, "alive\n")


def test_livez_is_red_when_nobody_answers(service: Service) -> None:
    service.hear_until("READY=1")
    service.process.send_signal(signal.SIGSTOP)
    code, said = service.livez("livez", "--timeout", "0.5")
    assert (code, "timed out" in said) == (1, True)
    service.process.kill()
    service.process.wait(10)
    code, said = service.livez("livez")
    assert (code, f"no pgbackup answers at 127.0.0.1:{service.port}" in said) == (1, True)


@pytest.mark.parametrize("setting", ["off", "nonsense"])
def test_livez_without_an_address_is_an_error_of_the_settings(service: Service, setting: str) -> None:
    code, said = service.livez("livez", PGBACKUP_HTTP=setting)
    assert (code, "PGBACKUP_HTTP" in said) == (2, True)
