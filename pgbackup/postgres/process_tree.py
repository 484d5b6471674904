"""Ends a process and its children with SIGKILL, as a machine does that loses its power.

Every backend of PostgreSQL leads a session of its own, so there is no process group to signal. The parent is stopped
first, so that it neither forks nor notices a dead child; then all of them go. The children are awaited: as long as one
lives, a new server in the same directory is refused.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_PROC = Path("/proc")
_POLL_SECONDS = 0.01
_TIMEOUT_SECONDS = 20.0


def kill_tree(pid: int) -> None:
    """Kill a process of ours and its children; the caller reaps the process itself."""
    _send(pid, signal.SIGSTOP)
    children = child_processes(pid)
    _send(pid, signal.SIGKILL)
    for child in children:
        _send(child, signal.SIGKILL)
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while any(_alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def child_processes(pid: int) -> list[int]:
    """The process ids of the direct children (Linux: from /proc)."""
    children = []
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and _stat(entry.name)[1:2] == [str(pid)]:
            children.append(int(entry.name))
    return children


def _stat(pid: int | str) -> list[str]:
    """State and parent of a process: the fields after the name, which is in parentheses and may hold anything."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
    except OSError:
        return []


def _alive(pid: int) -> bool:
    return _stat(pid)[:1] not in ([], ["Z"])


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
