"""Reaps orphans, as PID 1 must: processes that became our children because their parents ended.

A container that runs pgbackup alone makes it PID 1, and every process that was started in the container by other means
(``docker exec``, a probe) and whose parent ends is handed to us; nobody else collects its exit status, and zombies
would fill the table of processes.

Our own children must not be touched: whoever started one waits for it, and a status that was taken away looks like
success. ``waitpid(-1)`` is therefore never called. A zombie is reaped when no Popen object in this process holds its
PID and it was seen by several sweeps in a row: somebody who waits for a child takes its status in milliseconds. Sweeps
are counted instead of seconds, because a machine that was suspended lets time pass in which no thread could run.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import subprocess
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

_PR_GET_CHILD_SUBREAPER = 37
_SWEEPS_TO_REAP = 3
_PROC = Path("/proc")
_log = logging.getLogger(__name__)

Zombie = tuple[int, str]
"""PID and the time at which it began, which tells it from a later process with the same number."""


def is_reaper() -> bool:
    """Whether orphans come to this process: as PID 1, or because it was made the subreaper of what it runs in."""
    return os.getpid() == 1 or _is_subreaper()


class OrphanReaper:
    """``sweep`` is called every few seconds, by one thread. ``keep`` names own children that have no Popen object."""

    def __init__(self, keep: Callable[[], Collection[int]] = tuple, *, sweeps: int = _SWEEPS_TO_REAP) -> None:
        self._keep = keep
        self._sweeps = sweeps
        self._seen: dict[Zombie, int] = {}

    def sweep(self) -> int:
        """Look once, and reap what was there long enough. Returns how many were reaped."""
        if not _any_zombie():
            self._seen.clear()
            return 0
        self._seen = {zombie: self._seen.get(zombie, 0) + 1 for zombie in _zombie_children()}
        ripe = {zombie[0]: zombie for zombie, times in self._seen.items() if times >= self._sweeps}
        if not ripe:
            return 0
        own = _popen_pids() | set(self._keep())
        reaped = [pid for pid in ripe if pid not in own and _reap(pid)]
        for pid in reaped:
            del self._seen[ripe[pid]]
        if reaped:
            _log.debug("reaped %d orphans", len(reaped))
        return len(reaped)


def _any_zombie() -> bool:
    """Ask the kernel, which takes nothing away (WNOWAIT); most sweeps end here."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _zombie_children() -> Iterator[Zombie]:
    """All of them: ``waitid`` shows only the first, which may be one of our own, for ever."""
    us = str(os.getpid())
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            try:
                stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue  # it has ended meanwhile
            # The name, in parentheses, may hold anything; the fields after it are counted from the state.
            fields = stat.rpartition(")")[2].split()
            if fields[0] == "Z" and fields[1] == us:
                yield int(folder.name), fields[19]


def _popen_pids() -> set[int]:
    """The children that somebody in this process started and has not waited for yet, whichever library it is."""
    # By type, not isinstance, which would run the code of proxies.
    found = [thing for thing in gc.get_objects() if issubclass(type(thing), subprocess.Popen)]
    return {popen.pid for popen in found if popen.returncode is None and hasattr(popen, "pid")}


def _reap(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return False


def _is_subreaper() -> bool:
    answer = ctypes.c_int(0)
    try:
        failed = ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    except (OSError, AttributeError):
        return False
    return not failed and answer.value == 1
