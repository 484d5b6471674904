"""The name of a server for people."""

from __future__ import annotations

import pytest

from pgbackup.postgres.server_address import server_address


@pytest.mark.parametrize(
    ("conninfo", "environ", "name"),
    [
        ("host=db.example.org user=u password=hush dbname=shop", {}, "db.example.org:5432/shop"),
        ("postgresql://u:hush@db.example.org:6432/shop", {}, "db.example.org:6432/shop"),
        ("host=/var/run/postgresql dbname=shop", {}, "local:5432/shop"),
        ("host=a,b port=1,2 dbname=shop", {}, "a,b:1,2/shop"),
        ("", {"PGHOST": "db", "PGPORT": "5433", "PGDATABASE": "shop", "PGPASSWORD": "hush"}, "db:5433/shop"),
        ("host=other", {"PGHOST": "db"}, "other:5432"),
        ("no such thing", {}, ""),
    ],
)
def test_the_name_says_where_and_nothing_secret(
    monkeypatch: pytest.MonkeyPatch, conninfo: str, environ: dict[str, str], name: str
) -> None:
    for variable in ("PGHOST", "PGPORT", "PGDATABASE", "PGSERVICE"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    assert server_address(conninfo) == name
