"""`pgbackup init`: the role it makes can do what pgbackup does, and nothing more; what it prints can be run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgbackup.postgres.throwaway import ThrowawayServer
from tests.fix_app import MakeProgram, Program
from tests.fix_postgres import PASSWORD, ServerFactory

ROLE = "Backup Role"
NEW_PASSWORD = "hunter2 of the new role"


def admin(server: ThrowawayServer) -> dict[str, str]:
    return {"PGBACKUP_ADMIN_DSN": server.conninfo()}


def role_of(server: ThrowawayServer, name: str = ROLE) -> Any:
    rows = server.execute(
        "SELECT rolcanlogin, rolreplication, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls,"
        " pg_has_role(oid, 'pg_monitor', 'USAGE') FROM pg_roles WHERE rolname = %s",
        [name],
    )
    return rows[0] if rows else None


def init(program: Program, *arguments: str) -> Any:
    return json.loads(program("init", "--json", *arguments))


def test_apply_makes_the_role_once(make_server: ServerFactory, make_program: MakeProgram, pg_major: int) -> None:
    server = make_server(pg_major)
    program = make_program(server, **admin(server))
    first = init(program, "--apply", "--role", ROLE)
    assert first["done"] == [
        f"create role {ROLE}",
        f"let role {ROLE} read positions and settings",
        "let no slot hold back more than 16GB of WAL",
        "make the server read that",
    ]
    assert role_of(server) == (True, True, False, False, False, False, True)
    assert server.execute("SELECT setting FROM pg_file_settings WHERE name = 'max_slot_wal_keep_size'") == [("16GB",)]
    again = init(program, "--apply", "--role", ROLE)
    assert (again["done"], again["let_in"]) == ([], True)
    assert f"role {ROLE} gets in, for SQL and for replication" in program("init", "--apply", "--role", ROLE)


def test_apply_says_what_is_left_to_do_when_the_role_does_not_get_in(
    make_server: ServerFactory, make_program: MakeProgram
) -> None:
    server = make_server(host_auth="scram-sha-256")
    program = make_program(server, PGBACKUP_ADMIN_DSN=server.conninfo(password=PASSWORD))
    assert not init(program, "--apply")["let_in"]
    text = program("init", "--apply")
    assert "still to do: role pgbackup does not get in yet: the server wants a password" in text
    assert "\\password pgbackup" in text
    assert "host     replication  pgbackup" in text


def test_apply_gives_an_existing_role_what_it_lacks(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server(settings={"max_slot_wal_keep_size": "1GB"})
    server.execute(f'CREATE ROLE "{ROLE}" NOLOGIN CREATEDB')
    done = init(make_program(server, **admin(server)), "--apply", "--role", ROLE)["done"]
    assert done == [f"let role {ROLE} log in and replicate", f"let role {ROLE} read positions and settings"]
    assert role_of(server) == (True, True, False, False, True, False, True), "nothing is taken away"


def test_apply_sets_the_password_of_a_new_role(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server(host_auth="scram-sha-256", settings={"log_statement": "all"})
    dsn = server.conninfo(user=ROLE, password=NEW_PASSWORD)
    program = make_program(server, PGBACKUP_DSN=dsn, PGBACKUP_ADMIN_DSN=server.conninfo(password=PASSWORD))
    text = program("init", "--apply")
    assert f"set the password of role {ROLE} to the one in PGBACKUP_DSN" in text
    assert NEW_PASSWORD not in text + server.log_tail(200)
    assert "PGBACKUP_DSN" in text
    assert "failure" not in {
        line["status"]
        for line in json.loads(program("check", "--json"))["checks"]
        if line["name"] in {"server connection", "role", "pg_hba.conf"}
    }


def test_what_is_printed_can_be_run(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server()
    program = make_program(server)
    printed = init(program, "--role", ROLE)
    for statement in printed["statements"]:
        server.execute(statement)
    assert role_of(server) == (True, True, False, False, False, False, True)
    text = program("init", "--role", ROLE)
    assert all(f"{statement};" in text for statement in printed["statements"])
    assert "SET synchronous_commit = local;" in text
    assert f'\\password "{ROLE}"' in text
    assert [line.split(maxsplit=2)[:2] for line in printed["pg_hba"]] == [
        ["host", "replication"], ["host", "postgres"], ["host", "replication"], ["host", "postgres"],
    ]  # fmt: skip


def test_the_printed_lines_of_pg_hba_conf_let_pgbackup_in(
    make_server: ServerFactory, make_program: MakeProgram
) -> None:
    server = make_server(host_auth="scram-sha-256", settings={"max_slot_wal_keep_size": "1GB"})
    program = make_program(server, PGPASSWORD=PASSWORD)
    lines = [line for line in init(program)["pg_hba"] if "::1" not in line]
    (server.data_directory / "pg_hba.conf").write_text("\n".join(["local all postgres trust", *lines]) + "\n")
    server.reload()
    assert json.loads(program("check", "--json"))["ok"] is True


def test_apply_does_not_wait_for_a_standby_that_is_not_there(
    make_server: ServerFactory, make_program: MakeProgram
) -> None:
    server = make_server(settings={"synchronous_standby_names": "pgbackup"})
    assert init(make_program(server, **admin(server)), "--apply", "--role", ROLE)["done"]


def test_apply_without_the_right_to_says_which_is_needed(make_server: ServerFactory, make_program: MakeProgram) -> None:
    server = make_server()
    text = make_program(server)("init", "--apply", "--role", ROLE, exit_code=4)
    assert f"cannot create role {ROLE}" in text
    assert "hint: Connect as a superuser: name one with --admin-dsn or PGBACKUP_ADMIN_DSN." in text
    assert role_of(server) is None


def test_apply_on_a_standby_names_the_primary(make_server: ServerFactory, make_program: MakeProgram) -> None:
    standby = make_server.standby_of(make_server())
    program = make_program(standby)
    text = program("init", "--apply", "--admin-dsn", standby.conninfo(), exit_code=4)
    assert "roles are made on the primary" in text


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_repository_is_not_needed(
    make_server: ServerFactory, make_program: MakeProgram, arguments: list[str]
) -> None:
    program = make_program(make_server(start=False))
    del program.env["PGBACKUP_REPOSITORY"]
    assert "CREATE ROLE" in program("init", *arguments)
