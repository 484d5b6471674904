"""The processes of one run of a tool: every one that it started is found and ended, also those that left its group.

A tool runs in a process group of its own, with a mark in its environment that its descendants inherit. What is left
when the tool has ended is found in /proc (Linux) by either: a group's number is not given to another process while a
member lives, and nobody else has the mark. A descendant that left the group *and* cleared its environment is not
found; neither does it hold anything of ours.

Whoever kills a pgbackup with SIGKILL leaves its tools running: nothing tells them. The mark says whose run it is, so
the next pgbackup on that machine ends those whose owner is gone for certain.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from pgbackup.engines.presence.owner import Owner

MARK = "TOOL_RUN_OF_PGBACKUP"
"""The variable that marks a run. Its name has not got our prefix: an unknown setting would stop a `pgbackup`."""

_PROC = Path("/proc")
_POLL_SECONDS = 0.02
_GRACE_SECONDS = 1.0
_ROUNDS = 5
_MARK_FIELDS = 5


class OwnChildren:
    """The process ids of tools that somebody in this process waits for: the reaper of orphans leaves them alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pids: set[int] = set()

    def add(self, pid: int) -> None:
        with self._lock:
            self._pids.add(pid)

    def discard(self, pid: int) -> None:
        with self._lock:
            self._pids.discard(pid)

    def __call__(self) -> Collection[int]:
        with self._lock:
            return frozenset(self._pids)


own_children = OwnChildren()


def new_run() -> Owner:
    """This process as the owner of one run of a tool; to be retired when the run is over."""
    return Owner.new("")


def mark_of(run: Owner) -> str:
    """What marks the processes of a run."""
    return " ".join((run.boot, run.namespace, str(run.pid), str(run.started), run.attempt))


def left_behind(group: int, mark: str) -> list[int]:
    """The living processes of a run whose first process has ended."""
    return [pid for pid, its_group, its_mark in _living() if its_group == group or its_mark() == mark]


def orphaned() -> list[int]:
    """The living processes of runs whose pgbackup is gone."""
    return [pid for pid, _, mark in _living() if _is_orphaned(mark())]


def own() -> list[int]:
    """The living processes of every run of this process."""
    run = new_run()
    run.retire()
    ours = mark_of(run).split(" ")[:-1]
    return [pid for pid, _, mark in _living() if mark().split(" ")[:-1] == ours]


def end_own() -> int:
    """End every tool that this process runs, for it is about to end, and nobody else would. Returns how many."""
    return _end(own)


def end_left_behind(group: int, mark: str) -> int:
    """End what a run left. Returns how many there were."""
    return _end(lambda: left_behind(group, mark))


def end_orphaned() -> list[list[str]]:
    """End what a pgbackup that was killed left running. Returns the words of each command."""
    commands = [_command(pid) for pid in orphaned()]
    if commands:
        _end(orphaned)
    return commands


def _end(look: Callable[[], list[int]]) -> int:
    """SIGTERM, a second to obey, SIGKILL."""
    first = look()
    left = first
    for number in (signal.SIGTERM, *[signal.SIGKILL] * _ROUNDS):
        if not left:
            break
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        deadline = time.monotonic() + _GRACE_SECONDS
        while left and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            # Anew each time: one that is being ended may have forked.
            left = look()
    return len(first)


def _living() -> Iterator[tuple[int, int, Callable[[], str]]]:
    """Every process but this one: its number, its group, and its mark, which is looked for when it is asked for."""
    for folder in _PROC.iterdir():
        if not folder.name.isdecimal() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError, ValueError):  # it has ended
            # The name, in parentheses, may hold anything; state, parent and group follow.
            state, _, group = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:3]
            if state not in "ZX":
                yield int(folder.name), int(group), partial(_mark, folder)


def _mark(folder: Path) -> str:
    """Empty for a process without one, that has ended, or that is another user's."""
    begin = f"{MARK}=".encode()
    try:
        variables = (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((each[len(begin) :].decode(errors="replace") for each in variables if each.startswith(begin)), "")


def _command(pid: int) -> list[str]:
    try:
        return os.fsdecode((_PROC / str(pid) / "cmdline").read_bytes()).split("\0")[:-1]
    except OSError:
        return []


def _is_orphaned(mark: str) -> bool:
    fields = mark.split(" ")
    if len(fields) != _MARK_FIELDS:
        return False
    boot, namespace, pid, started, attempt = fields
    with contextlib.suppress(ValueError):
        return Owner("", boot, namespace, int(pid), int(started), attempt).is_gone() is True
    return False
