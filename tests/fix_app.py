"""pgbackup as its users have it: a program, configured by environment variables alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pgbackup.postgres.throwaway import ThrowawayServer
from tests.fix_postgres import ServerFactory
from tests.fix_store import S3Env

PROGRAM_ENVIRONMENTS = pytest.StashKey[list[dict[str, str]]]()
"""Those of a test's programs, for what looks at their repositories afterwards."""
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH")


@dataclass
class Program:
    """pgbackup with one environment. ``run`` starts the resident process, ``__call__`` runs a command to its end."""

    env: dict[str, str]
    folder: Path
    residents: list[Resident] = field(default_factory=list)

    def __call__(self, *arguments: str | Path, exit_code: int = 0, timeout: float = 120) -> str:
        """Standard output of a command. Fails the test when it exits with another code."""
        done = self._ended(*arguments, timeout=timeout)
        said = f"pgbackup {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == exit_code, said
        return done.stdout if exit_code == 0 else said

    def _ended(self, *arguments: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pgbackup", *map(str, arguments)],
            env=self.env, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def json(self, *arguments: str | Path, timeout: float = 120) -> Any:
        return json.loads(self(*arguments, "--json", timeout=timeout))

    def backups(self) -> list[dict[str, Any]]:
        """What ``list`` shows; none as well before there is a repository."""
        done = self._ended("list", "--json")
        document = json.loads(done.stdout or "{}")
        if "there is no repository" in document.get("error", {}).get("message", ""):
            return []
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return list(document["backups"])

    def run(self, **changes: str) -> Resident:
        """Start ``pgbackup run``."""
        log_path = self.folder / f"run-{len(self.residents)}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pgbackup", "run"],
                env=self.env | changes, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        resident = Resident(process, log_path)
        self.residents.append(resident)
        return resident

    def with_env(self, **changes: str) -> Program:
        """The same program with other settings; its residents are stopped with ours."""
        return Program(self.env | changes, self.folder, self.residents)

    def wait_backups(self, count: int = 1, timeout: float = 90) -> list[dict[str, Any]]:
        """Wait until ``list`` shows that many restorable backups."""
        deadline = time.monotonic() + timeout
        while True:
            found = [b for b in self.backups() if b["restorable"]]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"only {len(found)} backups in {timeout:g} s\n{self.logs()}"
            time.sleep(0.3)

    def logs(self) -> str:
        return "\n".join(f"--- {r.log_path.name}\n{r.log()}" for r in self.residents)


@dataclass
class Resident:
    """A `pgbackup run` that the test controls."""

    process: subprocess.Popen[bytes]
    log_path: Path

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-6000:]

    def terminate(self, timeout: float = 30) -> float:
        """SIGTERM; returns the seconds until it ended. Fails the test when it did not end well."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout)
        assert code == 0, f"exit {code} after SIGTERM\n{self.log()}"
        return time.monotonic() - begin

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def wait_log(self, text: str, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.log_path.read_text(errors="replace"):
            assert self.process.poll() is None, f"it ended\n{self.log()}"
            assert time.monotonic() < deadline, f"no {text!r} in {timeout:g} s\n{self.log()}"
            time.sleep(0.05)


MakeProgram = Callable[..., Program]


def server_env(server: ThrowawayServer, user: str = "pgbackup") -> dict[str, str]:
    """libpq's variables for a server."""
    return {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": user, "PGCONNECT_TIMEOUT": "5"}


@pytest.fixture
def make_program(request: pytest.FixtureRequest, tmp_path: Path, s3_env: S3Env) -> Iterator[MakeProgram]:
    """``make_program(server, s3=True, **settings)``: pgbackup for a server, with a repository of its own."""
    programs: list[Program] = []

    def make(server: ThrowawayServer, *, s3: bool = False, **settings: str) -> Program:
        base: Mapping[str, str] = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        folder = tmp_path / f"program-{len(programs)}"
        folder.mkdir()
        store = s3_env() if s3 else {"PGBACKUP_REPOSITORY": f"file://{folder}/repository"}
        quick = {"PGBACKUP_WAL_FLUSH_INTERVAL": "0.2s", "PGBACKUP_HTTP": "off"}
        env = {**base, **server_env(server), **store, **quick, **settings}
        programs.append(Program(env, folder))
        request.node.stash.setdefault(PROGRAM_ENVIRONMENTS, []).append(env)
        return programs[-1]

    yield make
    for program in programs:
        for resident in program.residents:
            if resident.process.poll() is None:
                resident.kill()
        if request.node.stash.get(pytest.StashKey[bool](), True):
            print(program.logs())


Restore = Callable[..., ThrowawayServer]


@pytest.fixture
def restore(make_server: ServerFactory) -> Restore:
    """Restore with the program and start the result as a stock server would be: without pgbackup."""
    number = 0

    def run(program: Program, major: int, *arguments: str) -> ThrowawayServer:
        nonlocal number
        number += 1
        target = make_server.new_directory(f"restored-{number}")
        program("restore", "--target", target, *arguments)
        server = make_server.over(target, major, settings={"fsync": "off"})
        server.wait_promoted()
        return server

    return run


def wait_shipped(program: Program, server: ThrowawayServer, timeout: float = 30) -> None:
    """Until the slot has been told that everything is durable."""
    deadline = time.monotonic() + timeout
    text = "SELECT pg_current_wal_flush_lsn() <= max(restart_lsn) FROM pg_replication_slots"
    while server.execute(text) != [(True,)]:
        assert time.monotonic() < deadline, program.logs()
        time.sleep(0.05)
