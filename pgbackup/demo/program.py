"""Runs pgbackup itself, as an operator would: by its command line, in processes of its own.

The demo shows the program and not its insides, so that what it shows is true. The environment is the demo's alone: an
operator's PGBACKUP_*, PG* and AWS_* must not reach it, or a demonstration could write into a production bucket.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgbackup.errors import ToolError
from pgbackup.postgres.unprivileged import ends_with_us

_STRANGE = ("PGBACKUP_", "PG", "AWS_", "SENTRY_")
_COMMAND_TIMEOUT_SECONDS = 120
_STOP_TIMEOUT_SECONDS = 30
_LOG_LINES = 15


class Program:
    """pgbackup's command line with one configuration; ``directory`` takes its log."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self._directory = directory
        own = {name: value for name, value in os.environ.items() if not name.startswith(_STRANGE)}
        self._environ = {**own, "NO_PROXY": "127.0.0.1", **settings}

    def run(self, *arguments: str) -> str:
        """Run a command to its end and return its stdout. Raises ToolError with what it said."""
        try:
            done = subprocess.run(
                self._command(arguments), env=self._environ, cwd=self._directory, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, errors="replace", timeout=_COMMAND_TIMEOUT_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            raise ToolError(f"pgbackup {arguments[0]} did not end in {_COMMAND_TIMEOUT_SECONDS} seconds") from exc
        if done.returncode:
            raise ToolError(
                f"pgbackup {arguments[0]} ended with exit status {done.returncode}", detail=_tail(done.stderr)
            )
        return done.stdout

    def read_json(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and return what it printed."""
        return json.loads(self.run(*arguments, "--json"))

    def start(self, *arguments: str) -> RunningProgram:
        """Start a command that stays."""
        log_path = self._directory / f"pgbackup-{arguments[0]}.log"
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [*ends_with_us(), *self._command(arguments)], env=self._environ, cwd=self._directory,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        return RunningProgram(f"pgbackup {arguments[0]}", process, log_path)

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        # -P: the working directory is not a place to import from.
        return [sys.executable, "-P", "-m", "pgbackup", *arguments]


class RunningProgram:
    """A command that runs until it is asked to stop."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
        self._name = name
        self._process = process
        self._log_path = log_path

    def check_alive(self) -> None:
        """Raises ToolError with the end of its log when it has ended."""
        if self._process.poll() is not None:
            raise ToolError(f"{self._name} ended with exit status {self._process.returncode}", detail=self.log_tail())

    def stop(self) -> None:
        """SIGTERM, and wait for a clean end. Raises ToolError when it is not one."""
        self.check_alive()
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            raise ToolError(f"{self._name} does not stop", detail=self.log_tail()) from None
        if status:
            raise ToolError(f"{self._name} ended with exit status {status}", detail=self.log_tail())

    def close(self) -> None:
        """Kill what still runs; for cleaning up."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def log_tail(self) -> str:
        return _tail(self._log_path.read_text(errors="replace"))


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LOG_LINES:])
