"""No secret of the configuration is ever printed or logged, however the program fails and however much it logs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from urllib.parse import quote

import pytest

from pgbackup.postgres.throwaway import ThrowawayServer
from tests.fix_app import MakeProgram, Program
from tests.fix_postgres import ServerFactory
from tests.fix_store import S3Env

SECRETS = {
    "dsn": "dsn-s3cret/pass word",
    "admin": "admin-s3cret&pass",
    "key": "key-s3cret-0123456789abcdef0123",
    "aws": "aws-s3cret/Access+Key",
    "token": "token-s3cret==",
    "pg": "pg-s3cret'pass",
    "proxy": "proxy-s3cret",
}
MARK = "s3cret"
"""In every secret: parts and other spellings of one are found as well."""

COMMANDS = (
    ["check"],
    ["check", "--json"],
    ["backup"],
    ["backup", "--json"],
    ["list"],
    ["verify"],
    ["init"],
    ["init", "--apply"],
    ["restore", "--latest", "--target", "{folder}/target"],
    ["wal-fetch", "000000010000000000000001", "{folder}/segment"],
    ["wal-push", "{folder}/000000010000000000000001"],
)


def settings(**changes: str) -> dict[str, str]:
    """Every secret that there is; server and store refuse connections unless ``changes`` say otherwise."""
    return {
        "PGBACKUP_LOG_LEVEL": "debug",
        "PGBACKUP_DSN": f"postgresql://pgbackup:{quote(SECRETS['dsn'], safe='')}@127.0.0.1:1/postgres",
        "PGBACKUP_ADMIN_DSN": f"host=127.0.0.1 port=1 user=postgres password={SECRETS['admin']}",
        "PGBACKUP_ENCRYPTION_KEY": SECRETS["key"],
        "PGPASSWORD": SECRETS["pg"],
        "PGBACKUP_REPOSITORY": "s3://bucket/prefix",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRETS["aws"],
        "AWS_SESSION_TOKEN": SECRETS["token"],
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        **changes,
    }


def said(program: Program, arguments: list[str]) -> str:
    """Everything that a command prints."""
    given = [text.format(folder=program.folder) for text in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "pgbackup", *given],
        env=program.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    text = f"$ pgbackup {' '.join(given)}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in text, text
    return text


def run_for(program: Program, seconds: float, **changes: str) -> str:
    """What ``pgbackup run`` logs until it is stopped."""
    resident = program.run(**changes)
    time.sleep(seconds)
    if resident.process.poll() is None:
        resident.process.send_signal(signal.SIGTERM)
        resident.process.wait(30)
    return resident.log_path.read_text()


def assert_no_secret(text: str) -> None:
    lines = [line for line in text.splitlines() if MARK in line.lower()]
    assert not lines, "\n".join(lines)
    for secret in SECRETS.values():
        assert quote(secret, safe="") not in text


def program_with(make_program: MakeProgram, server: ThrowawayServer, env: Mapping[str, str]) -> Program:
    program = make_program(server)
    program.env.update(env)
    (program.folder / "000000010000000000000001").write_bytes(bytes(1 << 20))
    return program


@pytest.mark.timeout(400)
@pytest.mark.parametrize("case", ["unreachable", "proxy", "refused", "bad key", "bad settings"])
def test_no_secret_is_ever_shown(
    case: str, make_server: ServerFactory, make_program: MakeProgram, s3_env: S3Env
) -> None:
    server = make_server(host_auth="scram-sha-256")
    changes = {
        "unreachable": {},
        "proxy": {"HTTP_PROXY": f"http://me:{SECRETS['proxy']}@127.0.0.1:1", "AWS_ENDPOINT_URL": "http://s3.invalid"},
        "refused": {
            "PGBACKUP_DSN": f"host=127.0.0.1 port={server.port} user=pgbackup password='{SECRETS['dsn']}'",
            "PGBACKUP_ADMIN_DSN": f"host=127.0.0.1 port={server.port} user=postgres password={SECRETS['admin']}",
            "AWS_ENDPOINT_URL": s3_env()["AWS_ENDPOINT_URL"],
        },
        "bad key": {"PGBACKUP_ENCRYPTION_KEY_TRANSFORM": "hex"},
        "bad settings": {"PGBACKUP_DSN": f"no dsn {SECRETS['dsn']}", "PGBACKUP_SLOT": "Bad Slot"},
    }[case]
    program = program_with(make_program, server, settings(**changes))
    text = "".join(run_for(program, 4, PGBACKUP_LOG_FORMAT=log_format) for log_format in ("text", "json"))
    text += "".join(said(program, arguments) for arguments in COMMANDS)
    assert len(text) > 500
    assert_no_secret(text)


def test_a_secret_that_somebody_else_echoes_is_replaced(make_server: ServerFactory, make_program: MakeProgram) -> None:
    """The server names the user, which is the password here, in its refusal: the filter sees every finished line."""
    server = make_server(host_auth="scram-sha-256")
    word = "echoed-s3cret"
    dsn = f"host=127.0.0.1 port={server.port} user={word} password={word}"
    program = make_program(server, PGBACKUP_DSN=dsn, PGBACKUP_LOG_LEVEL="debug")
    text = run_for(program, 3) + run_for(program, 3, PGBACKUP_LOG_FORMAT="json")
    text += "".join(said(program, arguments) for arguments in COMMANDS[:4])
    assert text.count("authentication failed for user") >= 5
    assert text.count("********") >= 5
    assert_no_secret(text)
