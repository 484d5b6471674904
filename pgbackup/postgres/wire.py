"""The messages of WAL streaming, as pure functions on bytes.

Source: the Postgres manual, "Streaming Replication Protocol", ``START_REPLICATION``: inside CopyBoth the server sends
XLogData (``w``) and primary keepalives (``k``), the client sends standby status updates (``r``). All integers are
64-bit big-endian; clocks count microseconds since 2000-01-01 UTC.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pgbackup.core.lsn import Lsn

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_XLOG_DATA = struct.Struct(">cQQq")
_KEEPALIVE = struct.Struct(">cQqB")
_STATUS = struct.Struct(">cQQQqB")


@dataclass(frozen=True, slots=True)
class WalData:
    """WAL bytes that begin at ``start``; ``server_time`` is the server's clock (µs since 2000) when it sent them."""

    start: Lsn
    server_end: Lsn
    server_clock: int
    data: memoryview

    @property
    def end(self) -> Lsn:
        return Lsn(self.start + len(self.data))


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The server is there; ``reply_requested`` asks for a status at once: it is about to time us out, or to stop."""

    server_end: Lsn
    server_clock: int
    reply_requested: bool


def parse_stream_message(message: bytes | memoryview) -> WalData | Keepalive:
    """One CopyData payload of a WAL stream. Raises ValueError for anything else."""
    view = memoryview(message)
    kind = bytes(view[:1])
    if kind == b"w" and len(view) >= _XLOG_DATA.size:
        _, start, end, clock = _XLOG_DATA.unpack_from(view)
        return WalData(Lsn(start), Lsn(end), clock, view[_XLOG_DATA.size :])
    if kind == b"k" and len(view) >= _KEEPALIVE.size:
        _, end, clock, reply = _KEEPALIVE.unpack_from(view)
        return Keepalive(Lsn(end), clock, bool(reply))
    raise ValueError(f"unknown message of {len(view)} bytes in the WAL stream: {kind!r}")


def format_status(durable: Lsn, now: datetime, *, reply_requested: bool = False) -> bytes:
    """A standby status update. Written, flushed and applied are all the durable LSN.

    Reporting received bytes as written would acknowledge commits under ``synchronous_commit = remote_write`` that no
    bucket holds, and zero as applied would hang ``remote_apply`` for ever.
    """
    clock = (now - _EPOCH) // timedelta(microseconds=1)
    return _STATUS.pack(b"r", durable, durable, durable, clock, int(reply_requested))


def clock_to_datetime(clock: int) -> datetime:
    """A protocol clock (µs since 2000-01-01 UTC) as an aware datetime."""
    return _EPOCH + timedelta(microseconds=clock)
