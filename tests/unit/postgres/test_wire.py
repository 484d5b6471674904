"""WAL stream messages, byte by byte as the manual has them."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest

from pgbackup.core.lsn import Lsn
from pgbackup.postgres.wire import Keepalive, WalData, clock_to_datetime, format_status, parse_stream_message


def test_wal_data() -> None:
    raw = b"w" + struct.pack(">QQq", 0x1000000, 0x2000000, 5) + b"abc"
    message = parse_stream_message(raw)
    assert isinstance(message, WalData)
    assert (message.start, message.server_end, message.server_clock) == (0x1000000, 0x2000000, 5)
    assert bytes(message.data) == b"abc"
    assert message.end == Lsn(0x1000003)


@pytest.mark.parametrize("reply", [0, 1])
def test_keepalive(reply: int) -> None:
    message = parse_stream_message(b"k" + struct.pack(">QqB", 77, 8, reply))
    assert message == Keepalive(Lsn(77), 8, bool(reply))


@pytest.mark.parametrize("raw", [b"", b"x", b"w123", b"k"])
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="unknown message"):
        parse_stream_message(raw)


def test_write_flush_and_apply_are_all_the_durable_lsn() -> None:
    raw = format_status(Lsn(99), datetime(2000, 1, 1, 0, 0, 1, tzinfo=UTC))
    assert struct.unpack(">cQQQqB", raw) == (b"r", 99, 99, 99, 1_000_000, 0)


def test_the_clock_counts_from_2000() -> None:
    assert clock_to_datetime(1_000_000) == datetime(2000, 1, 1, 0, 0, 1, tzinfo=UTC)
