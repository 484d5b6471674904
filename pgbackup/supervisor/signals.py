"""SIGTERM and SIGINT as an event: set by the first, and the second ends the process at once.

Installed before anything else starts: a process that is PID 1 ignores signals that it has no handler for. Ending at
once loses nothing, because only what is durable was ever confirmed. Signals are passed on to nobody.

Python runs its handlers in the main thread, between two steps of it: not while that waits in a library, nor when the
kernel gave the signal to another thread and nothing wakes the main one. A `run` was seen to go on idle for 15 s after
a SIGTERM at start-up, its handler never called. So nothing is done in the handler: the interpreter writes each signal's
number into a pipe as it arrives (``signal.set_wakeup_fd``), and a thread that reads the pipe sets the event.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

EXIT_SECOND_SIGNAL = 130
_ENDING = (signal.SIGTERM, signal.SIGINT)


def stop_on_signals() -> threading.Event:
    """An event that the first SIGTERM or SIGINT sets. Call it from the main thread."""
    stop = threading.Event()
    arrived, wakeup = os.pipe()
    os.set_blocking(wakeup, False)

    def listen() -> None:
        count = 0
        while numbers := os.read(arrived, 64):
            count += sum(number in _ENDING for number in numbers)
            if count > 1:
                os._exit(EXIT_SECOND_SIGNAL)
            if count:
                stop.set()

    threading.Thread(target=listen, name="signals", daemon=True).start()
    signal.set_wakeup_fd(wakeup)
    for number in _ENDING:
        signal.signal(number, _leave_to_the_pipe)
    return stop


def _leave_to_the_pipe(number: int, frame: FrameType | None) -> None:
    """Only there so that the signal does not end the process."""
