"""A bound for a whole request. Libraries bound each step, and a peer that sends a byte now and then takes every step.

When the time is over, the socket is shut down from a thread of its own, which wakes whoever reads or writes.
"""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Any, Self


class Cutoff:
    """``with Cutoff(30) as cutoff:`` one request, whose library calls ``cutoff.trace`` (httpx: the extension)."""

    def __init__(self, seconds: float) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.name = "alerts cutoff"
        self._timer.daemon = True
        self.passed = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._socket = None

    def trace(self, _event: str, info: dict[str, Any]) -> None:
        """Take the socket of each connection that is made, and the one that TLS makes of it."""
        stream = info.get("return_value")
        ask = getattr(stream, "get_extra_info", None)
        found = ask("socket") if ask else None
        if isinstance(found, socket.socket):
            with self._lock:
                self._socket = found
                if self.passed:
                    _shut_down(found)

    def _cut(self) -> None:
        with self._lock:
            self.passed = True
            if self._socket is not None:
                _shut_down(self._socket)


def _shut_down(found: socket.socket) -> None:
    try:
        # Not the TLS socket's own method, which would have its user go on in plain text.
        socket.socket.shutdown(found, socket.SHUT_RDWR)
    except OSError:
        return  # closed meanwhile
