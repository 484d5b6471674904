"""How much of a stream one system call takes from the socket: libpq's receive buffer, made wide at the beginning.

libpq begins with 16 KiB and doubles its buffer when it reads while the buffer is full (pqReadData and
pqCheckInBufferSpace in src/interfaces/libpq/fe-misc.c). Who takes every message as soon as it is there never fills it:
each read then brings one message of 32 KiB or a piece of it, and over TCP each read also wakes the server for as
little. With a buffer of 1 MiB a base backup makes a seventh of the system calls, and a tenth less work altogether.
"""

from __future__ import annotations

import select
import time
from contextlib import suppress

import psycopg
from psycopg import pq

_DOUBLINGS = 6
"""From 16 KiB to 1 MiB, which is the bound: a read doubles the buffer once at most, and libpq never makes it smaller.
Larger ones outgrow the processor's cache, and are slower."""
_FILL_SECONDS = 0.005
_PATIENCE_MILLISECONDS = 100


def widen(pgconn: pq.abc.PGconn, readable: select.poll) -> None:
    """Read up to 1 MiB of a stream that has begun into libpq's buffer, and take nothing from it.

    Ends early when nothing arrives: such a stream needs no wide buffer, or it is over. A connection that breaks
    meanwhile is the reader's to find out, after the messages that came before.
    """
    with suppress(psycopg.Error):
        for _ in range(_DOUBLINGS):
            if not readable.poll(_PATIENCE_MILLISECONDS):
                return
            time.sleep(_FILL_SECONDS)  # let the socket fill: a read that does not fill the buffer does not double it
            pgconn.consume_input()
