"""Runs one PostgreSQL server over a data directory, as a child of this process: start, stop, crash, wait.

What makes the server ours (port, sockets, listen address) is given on the command line, so that nothing of it stays in
the data directory. The server writes its log beside the directory, never into it; errors show the log's end.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pgbackup.errors import ToolError
from pgbackup.postgres.binaries import Installation
from pgbackup.postgres.process_tree import kill_tree
from pgbackup.postgres.server_settings import SettingValue, format_value
from pgbackup.postgres.unprivileged import Account, make_workspace, readable_installation, server_account

StopMode = Literal["smart", "fast", "immediate"]
START_TIMEOUT_SECONDS = 60.0
_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_PID_FILE_STATUS_LINE = 7
_POLL_SECONDS = 0.02
_PORT_TRIES = 5
_TAIL_BYTES = 64 * 1024


class ServerProcess:
    """One server over one data directory; ``close`` stops it and leaves the data directory and the log.

    ``reads_everything``: for a restore_command that the server's user could not run (see Account.start).
    """

    def __init__(
        self,
        installation: Installation,
        data_directory: Path,
        *,
        account: Account | None = None,
        port: int | None = None,
        log_path: Path | None = None,
        reads_everything: bool = False,
    ) -> None:
        self.account = account or server_account()
        self.installation = installation
        self.data_directory = data_directory
        self.log_path = log_path or data_directory.with_name(data_directory.name + ".log")
        self.socket_directory = make_workspace(self.account, "pgb-")
        self._reads_everything = reads_everything
        self._programs = readable_installation(installation, self.account)
        self._port_is_ours = port is not None
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def major(self) -> int:
        return self.installation.major

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The postmaster's process id. Raises ToolError when the server does not run."""
        if self._process is None or self._process.poll() is not None:
            raise ToolError(f"the server in {self.data_directory} does not run", detail=self.log_tail())
        return self._process.pid

    # -- start and stop -----------------------------------------------------------------------------------------------

    def start(
        self,
        *,
        settings: Mapping[str, SettingValue] | None = None,
        wait: bool = True,
        timeout: float = START_TIMEOUT_SECONDS,
    ) -> None:
        """Start, and wait until it takes connections. ``settings`` hold for this run only.

        Raises ToolError with the end of the log when the server stops or is not ready in time.
        """
        for attempt in range(_PORT_TRIES):
            begin = self.log_path.stat().st_size if self.log_path.exists() else 0
            self._spawn(settings or {})
            if not wait:
                return
            try:
                self.wait_ready(timeout=timeout)
            except ToolError:
                self.stop("immediate")
                # Between choosing a port and listening on it another process may have taken it.
                taken = "could not bind" in self._log_from(begin)
                if self._port_is_ours or not taken or attempt == _PORT_TRIES - 1:
                    raise
                self.port = free_port()
            else:
                self._port_is_ours = True
                return

    def wait_ready(self, *, timeout: float = START_TIMEOUT_SECONDS) -> None:
        """Wait until the server takes connections (a standby: until it is consistent)."""
        if not wait_until(lambda: not self.running or self._status() in {"ready", "standby"}, timeout):
            raise ToolError(f"the server in {self.data_directory} is not ready in time", detail=self.log_tail())
        if not self.running:
            raise ToolError(f"the server in {self.data_directory} stopped while starting", detail=self.log_tail())

    def stop(self, mode: StopMode = "fast", *, timeout: float = 60) -> None:
        """Stop as ``pg_ctl stop -m`` does; a server that does not run is no error. Raises ToolError when it hangs."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(_STOP_SIGNALS[mode])
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise ToolError(f"{mode} stop did not end in {timeout:g} seconds", detail=self.log_tail()) from None
        self._process = None

    def kill(self) -> None:
        """``kill -9`` of the server and all its processes: the machine lost its power."""
        if self._process is not None:
            kill_tree(self._process.pid)
            self._process.wait()
            self._process = None

    def restart(self, mode: StopMode = "fast", *, settings: Mapping[str, SettingValue] | None = None) -> None:
        self.stop(mode)
        self.start(settings=settings)

    def close(self) -> None:
        """Stop at once, without a checkpoint, and remove the socket directory."""
        try:
            self.stop("immediate", timeout=15)
        except ToolError:
            self.kill()
        shutil.rmtree(self.socket_directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def log_tail(self, lines: int = 25) -> str:
        """The end of the server's log."""
        size = self.log_path.stat().st_size if self.log_path.exists() else 0
        return "\n".join(self._log_from(max(0, size - _TAIL_BYTES)).splitlines()[-lines:])

    # -- inside -------------------------------------------------------------------------------------------------------

    def _spawn(self, settings: Mapping[str, SettingValue]) -> None:
        if self.running:
            raise ToolError(f"the server in {self.data_directory} runs already")
        ours: dict[str, SettingValue] = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.socket_directory),
            "logging_collector": False,
            "log_destination": "stderr",
            "ssl": False,
        }
        command: list[str | Path] = [self._programs.tool("postgres"), "-D", self.data_directory]
        for name, value in {**ours, **settings}.items():
            command += ["-c", f"{name}={format_value(value)}"]
        with self.log_path.open("ab") as log:
            self._process = self.account.start(command, log=log, reads_everything=self._reads_everything)

    def _status(self) -> str:
        """What the server says of itself in the last line of postmaster.pid, as pg_ctl reads it."""
        try:
            lines = (self.data_directory / "postmaster.pid").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        process = self._process
        if process is None or len(lines) <= _PID_FILE_STATUS_LINE or lines[0].strip() != str(process.pid):
            return ""
        return lines[_PID_FILE_STATUS_LINE].strip()

    def _log_from(self, offset: int) -> str:
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as file:
            file.seek(offset)
            return file.read().decode("utf-8", "replace")


def wait_until(done: Callable[[], bool], timeout: float) -> bool:
    """Ask ``done`` until it is true (returned) or ``timeout`` seconds have passed (False)."""
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
