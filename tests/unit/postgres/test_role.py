"""The role's SQL and the lines of pg_hba.conf: exactly what is needed, names quoted, no secret shown."""

from __future__ import annotations

import pytest

from pgbackup.errors import ConfigError
from pgbackup.postgres.role import RoleFacts, Target, hba_lines, network_of, plan_role, plan_slot_limit, target_of


def statements(changes):
    return [change.statement for change in changes]


def test_a_new_role_gets_what_it_needs_and_no_more():
    assert statements(plan_role("pgbackup")) == [
        'CREATE ROLE "pgbackup" LOGIN REPLICATION',
        'GRANT pg_monitor TO "pgbackup"',
    ]
    assert "SUPERUSER" not in str(plan_role("pgbackup"))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (RoleFacts(can_login=True, replication=True, superuser=False, monitor=True), []),
        (RoleFacts(can_login=True, replication=True, superuser=True, monitor=True), []),
        (
            RoleFacts(can_login=False, replication=True, superuser=False, monitor=True),
            ['ALTER ROLE "x" LOGIN REPLICATION'],
        ),
        (RoleFacts(can_login=True, replication=True, superuser=False, monitor=False), ['GRANT pg_monitor TO "x"']),
    ],
)
def test_an_existing_role_gets_what_it_lacks(facts, expected):
    assert statements(plan_role("x", facts)) == expected


def test_names_are_quoted():
    assert statements(plan_role('x"; DROP ROLE y; --'))[0] == 'CREATE ROLE "x""; DROP ROLE y; --" LOGIN REPLICATION'
    assert "'1''GB'" in statements(plan_slot_limit("-1", "1'GB"))[0]


def test_only_an_unbounded_slot_is_bounded():
    assert statements(plan_slot_limit("-1")) == [
        "ALTER SYSTEM SET max_slot_wal_keep_size = '16GB'",
        "SELECT pg_reload_conf()",
    ]
    assert plan_slot_limit("4096") == plan_slot_limit("0") == []


@pytest.mark.parametrize(
    ("conninfo", "environ", "expected"),
    [
        ("", {}, Target("pgbackup", "postgres", (), False)),
        (
            "",
            {"PGUSER": "u", "PGHOST": "db", "PGDATABASE": "d", "PGSSLMODE": "require"},
            Target("u", "d", ("db",), True),
        ),
        ("host=/run/postgresql user=x", {"PGHOST": "db"}, Target("x", "postgres", (), False)),
        ("postgresql://x:y@a,b/d?sslmode=verify-full", {}, Target("x", "d", ("a", "b"), True, "y")),
        ("host=a hostaddr=10.0.0.1", {}, Target("pgbackup", "postgres", ("10.0.0.1",), False)),
    ],
)
def test_who_connects_to_where(conninfo, environ, expected):
    assert target_of(conninfo, environ) == expected
    assert target_of(conninfo, environ, "named").role == "named"


def test_a_password_is_not_shown():
    assert "hunter2" not in repr(target_of("password=hunter2", {}))
    with pytest.raises(ConfigError) as caught:
        target_of("host=x hunter2", {})
    assert "hunter2" not in str(caught.value)


def lines(*hosts, role="pgbackup", database="postgres", tls=False, address="10.0.0.5/32"):
    return [line.split() for line in hba_lines(Target(role, database, hosts, tls), address)]


def test_lines_for_a_socket():
    assert lines() == [
        ["local", "replication", "pgbackup", "scram-sha-256"],
        ["local", "postgres", "pgbackup", "scram-sha-256"],
    ]


def test_lines_for_hosts():
    assert lines("db") == [
        ["host", "replication", "pgbackup", "10.0.0.5/32", "scram-sha-256"],
        ["host", "postgres", "pgbackup", "10.0.0.5/32", "scram-sha-256"],
    ]
    assert {line[3] for line in lines("localhost")} == {"127.0.0.1/32", "::1/128"}
    assert {line[3] for line in lines("127.0.0.1", "db")} == {"127.0.0.1/32", "::1/128", "10.0.0.5/32"}
    assert {line[0] for line in lines("db", tls=True)} == {"hostssl"}


def test_names_in_pg_hba_conf_are_quoted_when_they_must_be():
    assert lines("db", role="Back-Up", database="replication")[1][1:3] == ['"replication"', '"Back-Up"']
    assert lines("db", database="all")[1][1] == '"all"'


def test_networks():
    assert [network_of(text) for text in ("10.0.0.5", "fd00::1", "10.0.0.0/8")] == [
        "10.0.0.5/32",
        "fd00::1/128",
        "10.0.0.0/8",
    ]
