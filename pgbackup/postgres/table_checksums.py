"""Compares two servers row by row: after a restore, what was there must be there again, and nothing else.

A table's checksum is the sum of the 64-bit hashes of its rows as text, so the order of the rows does not matter and
nothing is sent but two numbers a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from pgbackup.postgres.throwaway import ThrowawayServer

_DATABASES = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1"
_TABLES = """
SELECT n.nspname, c.relname
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%'
 ORDER BY 1, 2
"""
_CHECKSUM = sql.SQL("SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text FROM ONLY {} AS t")


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """A table of one server."""

    database: str
    schema: str
    table: str

    def __str__(self) -> str:
        return f"{self.database}.{self.schema}.{self.table}"


@dataclass(frozen=True, slots=True)
class TableChecksum:
    """How many rows, and the sum of their hashes."""

    rows: int
    checksum: str


def table_checksums(server: ThrowawayServer) -> dict[TableName, TableChecksum]:
    """Every permanent table and materialized view of every database."""
    found: dict[TableName, TableChecksum] = {}
    for (database,) in server.execute(_DATABASES):
        with server.connect(dbname=database) as connection:
            for schema, table in connection.execute(_TABLES).fetchall():
                row: Any = connection.execute(_CHECKSUM.format(sql.Identifier(schema, table))).fetchone()
                found[TableName(database, schema, table)] = TableChecksum(row[0], row[1])
    return found


def describe_differences(left: dict[TableName, TableChecksum], right: dict[TableName, TableChecksum]) -> list[str]:
    """A line for each table that differs; empty when all are equal."""
    lines = []
    for name in sorted(left.keys() | right.keys()):
        one, other = left.get(name), right.get(name)
        if one == other:
            continue
        if one is None or other is None:
            lines.append(f"{name}: only on the {'right' if one is None else 'left'}")
        elif one.rows != other.rows:
            lines.append(f"{name}: {one.rows} rows on the left, {other.rows} on the right")
        else:
            lines.append(f"{name}: {one.rows} rows on both sides, with other content")
    return lines
