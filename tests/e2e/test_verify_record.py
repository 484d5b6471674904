"""`pgbackup verify --record` beside a `run`: damage that is found by hand is told, and what is repaired is green again
once it was read, not a week later. On a real S3 server, encrypted."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgbackup.core.health_facts import LastRun
from pgbackup.engines.check.store import FOLDER
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.repository.verification_note import read_verification, write_verification
from pgbackup.storage.s3 import S3Store
from tests.fix_app import MakeProgram, Program, Resident, wait_shipped
from tests.fix_store import S3Server, set_aws_env

SETTINGS = {
    "PGBACKUP_ENCRYPTION_KEY": "a key that nobody knows, 32 bytes",
    "PGBACKUP_HTTP": "127.0.0.1:0",
    "PGBACKUP_HEALTH_INTERVAL": "5s",
}


@pytest.fixture
def program(server: ThrowawayServer, make_program: MakeProgram) -> Program:
    made: Program = make_program(server, s3=True, **SETTINGS)
    return made


@pytest.fixture
def store(program: Program, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    set_aws_env({name: value for name, value in program.env.items() if name.startswith("AWS_")}, monkeypatch)
    return S3Store(program.env["PGBACKUP_REPOSITORY"])


def findings(resident: Resident) -> set[str]:
    """What the resident process told at its last look."""
    resident.wait_log("serving metrics and status at http://")
    match = re.search(r"at (http://127\.0\.0\.1:\d+)", resident.log_path.read_text())
    assert match is not None
    try:
        with urllib.request.urlopen(f"{match[1]}/status.json", timeout=5) as answer:
            document = json.loads(answer.read())
    except urllib.error.HTTPError as exc:
        with exc:
            document = json.loads(exc.read())
    return {finding["key"] for finding in document["findings"]}


def wait_for(resident: Resident, reached: Callable[[set[str]], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached(found := findings(resident)):
        assert time.monotonic() < deadline, f"{found}\n{resident.log()}"
        time.sleep(0.3)


def with_wal(server: ThrowawayServer, program: Program) -> None:
    server.execute("CREATE TABLE t AS SELECT generate_series(1, 10000) n")
    server.execute("SELECT pg_switch_wal()")
    wait_shipped(program, server)


def backup_and_part(program: Program, store: S3Store) -> tuple[str, str]:
    name = program.backups()[-1]["name"]
    return name, next(info.key for info in store.list(keys.tar_folder(name)) if "/part_" in info.key)


@pytest.mark.not_for_walg("an object is damaged, and one is left of a verification")
def test_damage_found_by_hand_is_told_and_the_repair_ends_it(
    server: ThrowawayServer, program: Program, store: S3Store, s3_server: S3Server
) -> None:
    resident = program.run()
    program.wait_backups()
    with_wal(server, program)
    wait_for(resident, lambda found: not found)

    reader = s3_server.as_reader()
    may_read = program.with_env(AWS_ACCESS_KEY_ID=reader.access_key, AWS_SECRET_ACCESS_KEY=reader.secret_key)
    assert "everything is there and whole" in may_read("verify")
    said = may_read("verify", "--record", exit_code=3)
    assert "it needs s3:PutObject" in said
    assert "segments" not in said, "not after hours of reading"
    assert read_verification(store) is None

    assert program.json("verify", "--record")["recorded"]
    assert program.json("status")["last_verification"]["ok"]
    assert not list(store.list(FOLDER)), "what it tried to write with"

    name, part = backup_and_part(program, store)
    data = store.get(part)
    store.put(part, data[:1000] + bytes(1000) + data[2000:])
    damaged: Any = json.loads(program._ended("verify", "--record", "--json").stdout)
    assert (damaged["ok"], damaged["recorded"]) == (False, True)
    assert part in {finding["object"] for finding in damaged["findings"]}
    wait_for(resident, lambda found: {"verify:failed", "repository:replaced"} <= found)
    assert "verify:failed" in program("status", "--json", exit_code=1)

    store.put(part, data)
    assert "the verdict is recorded" in program._ended("verify", "--record", "--backup", name).stderr
    wait_for(resident, lambda found: "verify:failed" not in found)
    # What was put back replaced something as well; it may have been noticed only after that verification had begun.
    wait_for(resident, lambda found: program("verify", "--record") != "" and not found)
    assert program.json("status")["verdict"] == "ok"
    resident.terminate()


def test_two_at_once_leave_one_verdict(server: ThrowawayServer, program: Program, store: S3Store) -> None:
    """The one of the schedule is a week late, and begins with `run`."""
    first = program.run()
    program.wait_backups()
    with_wal(server, program)
    first.terminate()
    name, _ = backup_and_part(program, store)
    week_ago = datetime.now(UTC) - timedelta(days=8)
    write_verification(
        store, LastRun(week_ago, ok=False, summary="damage", damaged=dict.fromkeys([name, "base_gone"]), began=week_ago)
    )
    resident = program.run()
    resident.wait_log("verifying backup")
    program("verify", "--record")
    resident.wait_log("verified backup")
    # What was recorded since one began it takes back for nobody: the next one does.
    program("verify", "--record")
    run = read_verification(store)
    assert run is not None
    assert (run.ok, tuple(run.damaged), set(run.whole)) == (True, (), {name})
    assert run.finished > week_ago + timedelta(days=7)
    wait_for(resident, lambda found: not found)
    resident.terminate()
