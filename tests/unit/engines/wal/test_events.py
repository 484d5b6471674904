"""The queue that wakes a select: what happens around its end."""

from __future__ import annotations

import os
import sys
import threading
import time

from pgbackup.engines.wal.events import WakeableQueue


def test_no_byte_reaches_who_gets_the_descriptor_next() -> None:
    """Uploads end after their session: the number of its pipe may be that of a socket to the server by then."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        strays = sum(_strays() for _ in range(300))
    finally:
        sys.setswitchinterval(interval)
    assert strays == 0


def _strays() -> int:
    """Bytes that late wake-ups of a closed queue write into pipes made after it."""
    events = WakeableQueue()
    stop = threading.Event()

    def wake() -> None:
        while not stop.is_set():
            events.wake()

    threads = [threading.Thread(target=wake) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.001)
    events.close()
    read, write = os.pipe()
    stop.set()
    for thread in threads:
        thread.join()
    os.set_blocking(read, False)
    try:
        return len(os.read(read, 100))
    except BlockingIOError:
        return 0
    finally:
        os.close(read)
        os.close(write)
