"""Tells systemd how the resident process is: ready, what it does, that its workers live, that it ends.

The protocol is sd_notify(3): datagrams of ``NAME=value`` lines to the Unix socket that ``NOTIFY_SOCKET`` names. Without
that variable nothing is sent. ``WATCHDOG=1`` is sent only while no worker hangs, as ``/livez`` judges it, so a process
that lives and does nothing is restarted by systemd.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pgbackup.core.status import StatusSnapshot, Verdict, verdict_now
from pgbackup.core.worker_health import WorkerState
from pgbackup.engines.base import StopSignal
from pgbackup.logs import redact
from pgbackup.printable import printable

_MAX_SECONDS = 10.0
_SEND_SECONDS = 1.0
_STATUS_CHARACTERS = 300
_STOP_MARGIN_SECONDS = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NotifySocket:
    """Where systemd listens, and how often it wants to hear that we live (None: it does not)."""

    address: str
    watchdog_seconds: float | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], pid: int) -> NotifySocket | None:
        """None without systemd. The watchdog counts only if it is meant for ``pid``."""
        given = environ.get("NOTIFY_SOCKET", "")
        if given[:1] not in ("/", "@"):
            return None
        microseconds = environ.get("WATCHDOG_USEC", "")
        meant_for_us = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        watched = microseconds.isdecimal() and int(microseconds) > 0 and meant_for_us
        return cls(given, int(microseconds) / 1e6 if watched else None)

    def send(self, **values: str) -> bool:
        """Send one message; False when nobody takes it, which is no reason to stop backing up."""
        message = "\n".join(f"{name}={value}" for name, value in values.items())
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_SECONDS)
                sender.sendto(message.encode(), address)
        except OSError as exc:
            _log.debug("systemd does not take notice: %s", exc)
            return False
        return True


@dataclass(frozen=True, slots=True)
class NoticeSources:
    """Where the notices come from, at any time: the workers (none before they began), the newest snapshot, the clock;
    ``stop`` ends the process, which takes up to ``stop_seconds``."""

    worker_states: Callable[[], Iterable[WorkerState]]
    read_status: Callable[[], StatusSnapshot | None]
    now: Callable[[], datetime]
    stop: StopSignal
    stop_seconds: float


class ServiceNotices:
    """A context manager: ``READY=1`` at its begin, then a thread that sends the rest until its end."""

    def __init__(self, where: NotifySocket, sources: NoticeSources) -> None:
        self._where = where
        self._sources = sources
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sd-notify", daemon=True)
        watchdog = where.watchdog_seconds
        # Half of what systemd grants, as sd_watchdog_enabled(3) advises.
        self._interval = _MAX_SECONDS if watchdog is None else min(_MAX_SECONDS, watchdog / 2)

    def __enter__(self) -> ServiceNotices:
        self._where.send(READY="1", STATUS=self._status())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(2 * _SEND_SECONDS)

    def _run(self) -> None:
        sources, where = self._sources, self._where
        while not sources.stop.wait(self._interval):
            if self._ended.is_set():
                return
            where.send(**self._alive(), STATUS=self._status())
        microseconds = int((sources.stop_seconds + _STOP_MARGIN_SECONDS) * 1e6)
        where.send(STOPPING="1", STATUS="stopping", EXTEND_TIMEOUT_USEC=str(microseconds))
        while not self._ended.wait(self._interval):
            if alive := self._alive():
                where.send(**alive)

    def _silent(self) -> list[str]:
        return [state.name for state in self._sources.worker_states() if state.silent]

    def _alive(self) -> dict[str, str]:
        watched = self._where.watchdog_seconds is not None
        return {"WATCHDOG": "1"} if watched and not self._silent() else {}

    def _status(self) -> str:
        """One line for ``systemctl status``."""
        if silent := self._silent():
            return f"hangs: {', '.join(silent)}"
        snapshot = self._sources.read_status()
        verdict = verdict_now(snapshot, self._sources.now())
        if snapshot is None or verdict == Verdict.UNKNOWN:
            text = "unknown: no current health check"
        elif snapshot.findings:
            text = f"{verdict}: {snapshot.findings[0].finding.summary}"
        elif snapshot.latest_recoverable is not None:
            text = f"{verdict}: recoverable to {snapshot.latest_recoverable.isoformat(sep=' ', timespec='seconds')}"
        else:
            text = str(verdict)
        return printable(redact(" ".join(text.split())))[:_STATUS_CHARACTERS]
