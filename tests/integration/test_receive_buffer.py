"""A wide receive buffer takes a mebibyte of a base backup with one read, from a real server, and no more than that."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from psycopg import pq

from pgbackup.postgres.base_backup_wire import BaseBackupOptions, format_command
from pgbackup.postgres.receive_buffer import widen
from pgbackup.postgres.replication import ReplicationConnection
from pgbackup.postgres.throwaway import ThrowawayServer
from tests.fix_postgres import ServerFactory

MIB = 1 << 20
NARROW = MIB // 8


@contextmanager
def copying(server: ThrowawayServer) -> Iterator[pq.abc.PGconn]:
    """A connection on which a base backup has begun and nothing of it was read."""
    connection = ReplicationConnection.connect(server.conninfo(user="pgbackup"), application_name="test")
    try:
        pgconn = connection.pgconn
        pgconn.send_query(format_command(BaseBackupOptions("test"), server.major).encode())
        while (result := pgconn.get_result()) is not None and result.status != pq.ExecStatus.COPY_OUT:
            assert result.status == pq.ExecStatus.TUPLES_OK
        yield pgconn
    finally:
        connection.close()


def taken(pgconn: pq.abc.PGconn) -> int:
    """Take what libpq has, without a read: its bytes."""
    total = 0
    while (size := pgconn.get_copy_data(1)[0]) > 0:
        total += size
    return total


def one_read(pgconn: pq.abc.PGconn) -> int:
    """The bytes that a single read brings once the socket is full."""
    time.sleep(0.2)
    pgconn.consume_input()
    return taken(pgconn)


@pytest.fixture
def poller() -> select.poll:
    return select.poll()


def test_one_read_takes_much_once_it_is_wide(pg_major: int, make_server: ServerFactory, poller: select.poll) -> None:
    with copying(make_server(pg_major)) as pgconn:
        poller.register(pgconn.socket, select.POLLIN)
        widen(pgconn, poller)
        gathered = taken(pgconn)
        later = one_read(pgconn)
    assert NARROW < gathered <= MIB
    assert NARROW < later <= MIB


def test_one_read_takes_little_where_it_is_not(make_server: ServerFactory) -> None:
    with copying(make_server()) as pgconn:
        reads = [one_read(pgconn) for _ in range(5)]
    assert max(reads) < NARROW


def test_a_connection_that_breaks_is_left_to_the_reader(make_server: ServerFactory, poller: select.poll) -> None:
    server = make_server()
    with copying(server) as pgconn:
        poller.register(pgconn.socket, select.POLLIN)
        server.kill()
        widen(pgconn, poller)
        assert taken(pgconn) > 0
