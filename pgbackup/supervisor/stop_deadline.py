"""The end of the time to stop, kept even when the main thread hangs in a library.

That may be a connection attempt of libpq, or a request to a store that does not answer. Ending the process in the
middle of anything is safe: only what is durable was ever confirmed.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from pgbackup.errors import EXIT_OK

_GRACE_SECONDS = 0.5
"""For a service that used all of its time to say so, and to return."""

_log = logging.getLogger(__name__)


def end_in_time(stop: threading.Event, stop_seconds: float) -> None:
    """From when ``stop`` is set, give the process so many seconds to end by itself, then end it."""

    def watch() -> None:
        stop.wait()
        time.sleep(stop_seconds + _GRACE_SECONDS)
        _log.warning("the time to stop is over: ending without waiting for what is still under way")
        os._exit(EXIT_OK)

    threading.Thread(target=watch, name="stop-deadline", daemon=True).start()
