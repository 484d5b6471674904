"""SIGTERM and SIGINT as an event: set by the first, and the second ends the process at once.

Installed before anything else starts: a process that is PID 1 ignores signals that it has no handler for. Ending at
once loses nothing, because only what is durable was ever confirmed. Signals are passed on to nobody.

The handler runs in the main thread, between any two steps of it, perhaps while it holds the lock of this very event;
``Event.set`` would wait for ever then. So the handler only puts into a SimpleQueue, which is made for that, and a
thread sets the event.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from types import FrameType

EXIT_SECOND_SIGNAL = 130


def stop_on_signals() -> threading.Event:
    """An event that the first SIGTERM or SIGINT sets. Call it from the main thread."""
    stop = threading.Event()
    received: queue.SimpleQueue[int] = queue.SimpleQueue()
    count = 0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            os._exit(EXIT_SECOND_SIGNAL)
        received.put(number)

    def set_event() -> None:
        received.get()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    threading.Thread(target=set_event, name="signals", daemon=True).start()
    return stop
