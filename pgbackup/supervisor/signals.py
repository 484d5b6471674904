"""SIGTERM and SIGINT as an event: set by the first, and the second ends the process at once.

Installed before anything else starts: a process that is PID 1 ignores signals that it has no handler for. Ending at
once loses nothing, because only what is durable was ever confirmed.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

EXIT_SECOND_SIGNAL = 130


def stop_on_signals() -> threading.Event:
    """An event that the first SIGTERM or SIGINT sets. Call it from the main thread."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(EXIT_SECOND_SIGNAL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop
