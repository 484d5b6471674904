"""Runs another program to its end, whatever it does: the one place that imports ``sh``.

The program hangs: it has a time, then SIGTERM to its whole process group, then SIGKILL. It prints without end, or what
is no text: the output is bounded (tool_output.py). It leaves children: they are ended (tool_processes.py). It is
killed: that is an outcome like another. We are told to stop: the same as a timeout, at once. In every case its status
is collected (no zombie) and nothing of it stays open.

``sh`` and its traps: the child is in a group of its own (``_new_group``; without it a signal to the group would be one
to us); it has no terminal; its output goes to pipes of ours, because ``sh`` keeps all of a pipe in memory and waits
for whoever inherited one; ``_bg_exc`` is off and the end always awaited; its logger, which prints commands, is silent.
A child that fails between fork and exec is never collected by ``sh``, so the command goes through ``/bin/sh``'s
``exec``, which exists and reports what cannot be started as exit 126 or 127. Secrets go by the environment only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sh

from pgbackup.core.stop import StopSignal
from pgbackup.count_text import counted
from pgbackup.engines.wale.tool_output import ToolOutput
from pgbackup.engines.wale.tool_processes import MARK, end_left_behind, mark_of, new_run, own_children

TERM_SECONDS = 3.0
_KILL_SECONDS = 10.0
_FIRST_POLL_SECONDS = 0.005
_LAST_POLL_SECONDS = 0.1
_TO_EXEC = 'exec "$@"'
_log = logging.getLogger(__name__)
_forking = threading.Lock()
logging.getLogger("sh").setLevel(logging.WARNING)

Ending = Literal["exit", "timeout", "stop"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. ``status``: the exit status, or the negative number of the signal that killed it;
    ``ending`` says who ended it; ``stdout`` is its beginning, ``stderr`` its end; ``left`` processes were ended."""

    status: int
    ending: Ending
    stdout: str
    stderr: str
    seconds: float
    left: int

    @property
    def ok(self) -> bool:
        return self.status == 0 and self.ending == "exit"


def run_program(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    timeout_seconds: float,
    stop: StopSignal | None = None,
    folder: Path | None = None,
    watch: Callable[[int], None] = lambda active: None,
) -> Outcome:
    """Run ``command`` to its end with exactly the environment ``env``.

    ``watch`` is called while it runs with a number that grows with its output; what it raises ends the program and is
    raised. ``folder``: the working directory, which exists.
    """
    run, begin = new_run(), time.monotonic()
    mark = mark_of(run)
    with ToolOutput() as output:
        running = _start(command, {**env, MARK: mark}, folder, output)
        pid, group = int(running.pid), int(running.pgid)
        own_children.add(pid)
        try:
            ending = _await_end(running, begin + timeout_seconds, stop, lambda: watch(output.active))
        except BaseException:
            _end_group(running)
            raise
        finally:
            left = end_left_behind(group, mark)
            output.finish()
            _collect(running)
            own_children.discard(pid)
            run.retire()
        if left:
            _log.warning("%s left %s behind, now ended", Path(command[0]).name, counted(left, "process"))
        stdout = output.head.decode("utf-8", "replace")
        return Outcome(_status(running), ending, stdout, output.text(), time.monotonic() - begin, left)


def _start(command: Sequence[str | Path], env: dict[str, str], folder: Path | None, output: ToolOutput) -> Any:
    with Path(os.devnull).open("rb") as nothing, _forking:
        running = sh.Command("/bin/sh")(
            "-c", _TO_EXEC, "sh", *map(str, command),
            _in=nothing, _out=output.stdout, _err=output.stderr, _env=env, _cwd=str(folder or Path.cwd()),
            _bg=True, _bg_exc=False, _new_group=True, _tty_in=False, _tty_out=False,
            _no_out=True, _no_err=True, _no_pipe=True, _return_cmd=True,
        )  # fmt: skip
    output.started()
    return running


def _await_end(running: Any, deadline: float, stop: StopSignal | None, watch: Callable[[], None]) -> Ending:
    delay = _FIRST_POLL_SECONDS
    while running.is_alive():
        if stop is not None and stop.is_set():
            _end_group(running)
            return "stop"
        if time.monotonic() > deadline:
            _end_group(running)
            return "timeout"
        watch()
        if stop is not None:
            stop.wait(delay)
        else:
            time.sleep(delay)
        delay = min(delay * 1.5, _LAST_POLL_SECONDS)
    return "exit"


def _end_group(running: Any) -> None:
    """SIGTERM to the group, then SIGKILL; returns when its first process is gone, or cannot be ended."""
    for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(int(running.pgid), number)
        deadline = time.monotonic() + seconds
        while running.is_alive():
            if time.monotonic() > deadline:
                break
            time.sleep(_FIRST_POLL_SECONDS)
        else:
            return
    _log.error("process %d cannot be ended: it waits for its disk", running.pid)


def _collect(running: Any) -> None:
    """Take its status, and let ``sh`` end its threads. One that cannot be killed is left."""
    if not running.is_alive():
        with contextlib.suppress(sh.ErrorReturnCode):
            running.wait()


def _status(running: Any) -> int:
    status = running.process.exit_code
    return int(status) if status is not None else -int(signal.SIGKILL)
