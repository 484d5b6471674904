"""Databases as people have them, restored and checked by Postgres' own tools: large tables, every index, odd names."""

from __future__ import annotations

import pytest

from pgbackup.postgres.table_checksums import table_checksums
from pgbackup.postgres.throwaway import ThrowawayServer
from tests.fix_app import MakeProgram, Restore
from tests.fix_postgres import ServerFactory

pytestmark = pytest.mark.timeout(300)

ODD = 'Größe "x" / ümlaut; DROP'


def amcheck(make_server: ServerFactory, server: ThrowawayServer) -> None:
    """Every table and index, compared with each other."""
    tool = make_server.installation(server.major).bindir / "pg_amcheck"
    if not tool.exists():
        pytest.skip("pg_amcheck does not come with this PostgreSQL")
    make_server.account.run(
        [
            tool,
            "--all",
            "--install-missing",
            "--heapallindexed",
            "--parent-check",
            "--maintenance-db",
            server.conninfo(),
        ],
        timeout=200,
    )


def test_a_table_of_more_than_a_gigabyte(
    make_server: ServerFactory, make_program: MakeProgram, restore: Restore
) -> None:
    """Its second file begins at 1 GiB; the parts of the backup cut through both."""
    server = make_server(18, settings={"max_wal_size": "4GB", "wal_compression": "on"})
    server.execute(
        "CREATE TABLE big AS SELECT i AS id, repeat(md5(i::text), 30) AS filler FROM generate_series(1, 1100000) i"
    )
    server.execute("ALTER TABLE big ADD PRIMARY KEY (id)")
    assert server.execute("SELECT pg_relation_size('big') > 1 << 30") == [(True,)]
    program = make_program(server, s3=True)
    program("backup")
    restored = restore(program, server.major, "--immediate")
    assert restored.execute("SELECT count(*), sum(id), sum(hashtext(filler)) FROM big") == server.execute(
        "SELECT count(*), sum(id), sum(hashtext(filler)) FROM big"
    )
    amcheck(make_server, restored)


def test_odd_names_and_every_kind_of_index(
    make_server: ServerFactory, make_program: MakeProgram, restore: Restore
) -> None:
    server = make_server(18)
    quoted = ODD.replace('"', '""')
    server.execute(f'CREATE DATABASE "{quoted}"')
    for name in ("postgres", ODD):
        table = f'"{quoted} table"'
        server.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, t text, a int[], p point, r int4range)", dbname=name)
        server.execute(
            f"INSERT INTO {table} SELECT i, md5(i::text), ARRAY[i, i + 1], point(i, i), int4range(i, i + 5)"
            " FROM generate_series(1, 20000) i",
            dbname=name,
        )
        for number, index in enumerate(("USING hash (t)", "USING gin (a)", "USING gist (p)", "USING brin (id)", "(t)")):
            server.execute(f'CREATE INDEX "{quoted} {number}" ON {table} {index}', dbname=name)
    program = make_program(server)
    program("backup")
    restored = restore(program, server.major, "--latest")
    assert table_checksums(restored) == table_checksums(server)
    amcheck(make_server, restored)
