"""The processes of one run of a tool: every one that it started is found and ended, also those that left its group.

A tool runs in a process group of its own, with a mark in its environment that its descendants inherit. What is left
when the tool has ended is found in /proc (Linux) by either: a group's number is not given to another process while a
member lives, and nobody else has the mark. A descendant that left the group *and* cleared its environment is not
found; neither does it hold anything of ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Collection
from pathlib import Path

MARK = "TOOL_RUN_OF_PGBACKUP"
"""The variable that marks a run. Its name has not got our prefix: an unknown setting would stop a `pgbackup`."""

_PROC = Path("/proc")
_POLL_SECONDS = 0.02
_GRACE_SECONDS = 1.0
_ROUNDS = 5


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


def left_behind(group: int, mark: str) -> list[int]:
    """The living processes of a run whose first process has ended."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in _PROC.iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid() and _is_of(folder, group, wanted):
            found.append(int(folder.name))
    return found


def end_left_behind(group: int, mark: str) -> int:
    """End what a run left: SIGTERM, a second to obey, SIGKILL. Returns how many there were."""
    first = left_behind(group, mark)
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
            left = left_behind(group, mark)
    return len(first)


def _is_of(folder: Path, group: int, wanted: bytes) -> bool:
    try:
        # The name, in parentheses, may hold anything; state, parent and group follow.
        state, _, its_group = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:3]
        if state in "ZX":
            return False
        return int(its_group) == group or wanted in (folder / "environ").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return False  # it has ended, or is another user's
