"""A bucket reached with nothing but the variables of WAL-G or of WAL-E, and what `check` says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.fix_app import MakeProgram, Program
from tests.fix_store import S3Server, new_prefix

KEY = "hunter2-hunter2-hunter2-hunter2"


def theirs(program: Program, server: S3Server, **changes: str) -> Program:
    """The same program, told of the bucket by another tool's variables."""
    ours = ("PGBACKUP_REPOSITORY", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE")
    env = {name: value for name, value in program.env.items() if name not in ours}
    credentials = {name: value for name, value in server.env("x").items() if name not in ours}
    return replace(program, env={**env, **credentials, **changes})


def check(program: Program) -> dict[str, Any]:
    document = program.json("check")
    return {line["name"]: line for line in document["checks"]} | {"inherited": document["inherited"]}


@pytest.mark.parametrize("tool", ["wal-g", "wal-e", "wal-g over TLS"])
def test_a_bucket_is_reached_with_their_variables(
    tool: str, make_server, make_program: MakeProgram, s3_server: S3Server, s3_tls_server: S3Server
) -> None:
    server = make_server()
    server.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'")
    server.execute("SELECT pg_reload_conf()")
    place = f"s3://{s3_server.bucket}/{new_prefix()}"
    walg = {"WALG_S3_PREFIX": place, "AWS_ENDPOINT": s3_server.endpoint, "AWS_S3_FORCE_PATH_STYLE": "true"}
    changes = {
        "wal-g": walg,
        "wal-g over TLS": {
            **walg,
            "AWS_ENDPOINT": s3_tls_server.endpoint,
            "WALG_S3_CA_CERT_FILE": str(s3_tls_server.ca_file),
        },
        "wal-e": {"WALE_S3_PREFIX": place, "WALE_S3_ENDPOINT": s3_server.endpoint.replace("http:", "http+path:")},
    }[tool]
    program = theirs(make_program(server), s3_server, **changes, WALG_LIBSODIUM_KEY=KEY, WALG_S3_RETENTION_PERIOD="9")
    shown = check(program)
    assert (shown["put"]["status"], shown["multipart upload"]["status"]) == ("ok", "ok")
    assert "on: the round trip works" in shown["encryption"]["text"]
    assert {each["use"] for each in shown["inherited"] if each["variable"] in changes} == {"understood"}
    assert {"variable": "WALG_S3_RETENTION_PERIOD", "use": "ignored", "loses": True}.items() <= next(
        each for each in shown["inherited"] if each["loses"]
    ).items()
    text = program("check", "--show-config")
    assert "WALG_LIBSODIUM_KEY" in text
    assert "hunter2" not in text
    assert f"there is no repository at {place}" in program("list", exit_code=3)


def test_encryption_of_theirs_stops_every_command(make_server, make_program: MakeProgram, s3_server: S3Server) -> None:
    """Nothing is stored in plaintext because a variable was not understood."""
    program = make_program(make_server(), WALE_GPG_KEY_ID="hunter2")
    for command in ("check", "backup", "list"):
        said = program(command, exit_code=2)
        assert "WALE_GPG_KEY_ID: encryption with OpenPGP is not written by pgbackup" in said
        assert "hunter2" not in said
