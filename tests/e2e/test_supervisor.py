"""`pgbackup run` watches itself: green and red over HTTP and in `status`, and people hear of it."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgbackup.core.jitter import jitter
from pgbackup.core.schedule_spec import ScheduleSpec, next_due
from pgbackup.postgres.throwaway import ThrowawayServer
from tests.fix_app import MakeProgram, Program, Resident
from tests.fix_postgres import ServerFactory
from tests.fix_receiver import Receiver

SECRET = "s3cret of the webhook"
WATCHED = {"PGBACKUP_HTTP": "127.0.0.1:0", "PGBACKUP_HEALTH_INTERVAL": "5s"}


def wait_for(reached: Callable[[], Any], said: Callable[[], object], timeout: float = 60) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := reached()):
        assert time.monotonic() < deadline, said()
        time.sleep(0.1)
    return found


def page(resident: Resident, path: str) -> tuple[int, str]:
    """Status and body of one of the resident's pages."""
    resident.wait_log("serving metrics and status at http://")
    match = re.search(r"at http://(127\.0\.0\.1:\d+)", resident.log_path.read_text())
    assert match is not None
    try:
        with urllib.request.urlopen(f"http://{match[1]}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def wait_ready(resident: Resident, status: int, timeout: float = 60) -> str:
    def ready() -> str | None:
        found, body = page(resident, "/readyz")
        return body if found == status else None

    said: str = wait_for(ready, lambda: page(resident, "/readyz"), timeout)
    return said


def empty(program: Program) -> None:
    """Delete everything in a file repository, behind pgbackup's back."""
    root = Path(program.env["PGBACKUP_REPOSITORY"].removeprefix("file://"))
    for entry in root.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def alerts(receiver: Receiver) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in receiver.requests if request.path == "/hook"]


def test_a_fleet_s_delay_is_in_what_a_running_process_plans(server: ThrowawayServer, make_program: MakeProgram) -> None:
    """The moment is the schedule's and this cluster's delay: the same in `run`, after a restart, and in `status`."""
    program = make_program(
        server, **WATCHED, PGBACKUP_SCHEDULE="daily at 12:00", PGBACKUP_SCHEDULE_JITTER="5h", PGBACKUP_CLUSTER="one"
    )
    planned = set()
    for _ in range(2):
        resident = program.run()
        (backup,) = program.wait_backups()
        wait_ready(resident, 200)
        planned.add(json.loads(page(resident, "/status.json")[1])["backups"]["next_due"])
        planned.add(json.loads(program._ended("status", "--json").stdout)["backups"]["next_due"])
        resident.terminate()
    finished = datetime.fromisoformat(backup["finished"])
    due = next_due(ScheduleSpec.parse("daily at 12:00"), finished, UTC)
    delayed = due + jitter("one", due, timedelta(hours=5))
    assert delayed > due
    shown = delayed.replace(microsecond=delayed.microsecond // 1000 * 1000)
    assert {datetime.fromisoformat(text) for text in planned} == {shown}


def test_green_then_the_bucket_is_emptied(
    server: ThrowawayServer, make_program: MakeProgram, receiver: Receiver
) -> None:
    program = make_program(
        server,
        **WATCHED,
        PGBACKUP_WEBHOOK_URLS=f"{receiver.url}/hook",
        PGBACKUP_WEBHOOK_SECRET=SECRET,
        PGBACKUP_HEARTBEAT_URL=f"{receiver.url}/beat",
        SENTRY_DSN=receiver.dsn,
    )
    resident = program.run()
    program.wait_backups()
    wait_ready(resident, 200)
    status = wait_for(lambda: (s := program.json("status"))["verdict"] == "ok" and s, resident.log)
    assert status["recoverable"]["earliest"]
    assert status["backups"]["last"]["raw_bytes"] > 1_000_000
    metrics = page(resident, "/metrics")[1]
    assert "pgbackup_up 1.0" in metrics
    assert re.search(r"^pgbackup_recoverable_latest_timestamp_seconds 1\.\d+e\+09$", metrics, re.MULTILINE)
    assert page(resident, "/livez")[0] == 200
    wait_for(lambda: any(r.path == "/beat" for r in receiver.requests), resident.log)

    begin = time.monotonic()
    empty(program)
    said = wait_ready(resident, 503)
    assert time.monotonic() - begin < 15, "red within one check interval"
    assert "nothing can be restored" in said
    wait_for(
        lambda: [a for a in alerts(receiver) if (a["key"], a["severity"]) == ("backup:none", "critical")], resident.log
    )
    wait_for(lambda: any(r.path == "/beat/fail" for r in receiver.requests), resident.log)
    wait_for(lambda: sum(r.path == "/api/42/envelope/" for r in receiver.requests) >= 3, resident.log)
    program.wait_backups()  # a new one is taken at once
    resident.terminate()
    empty(program)
    assert "CRITICAL" in program("status", exit_code=1)
    for request in (r for r in receiver.requests if r.path == "/hook"):
        signature = hmac.new(SECRET.encode(), request.body, hashlib.sha256).hexdigest()
        assert request.headers["X-Pgbackup-Signature"] == f"sha256={signature}"


@pytest.mark.not_for_walg("a backup loses a part")
def test_a_lost_part_is_red_and_mended_by_a_new_backup(
    server: ThrowawayServer, make_program: MakeProgram, receiver: Receiver
) -> None:
    """Nobody waits for tomorrow's schedule: nothing could be restored until then."""
    program = make_program(server, **WATCHED, PGBACKUP_WEBHOOK_URLS=f"{receiver.url}/hook")
    resident = program.run()
    program.wait_backups()
    wait_ready(resident, 200)
    root = Path(program.env["PGBACKUP_REPOSITORY"].removeprefix("file://"))
    lost = next(root.glob("basebackups_005/*/tar_partitions/part_001*"))
    lost.unlink()
    wait_for(
        lambda: [a for a in alerts(receiver) if a["key"] in ("backup:none", "backup:newest-not-restorable")],
        resident.log,
        timeout=70,
    )
    program.wait_backups(1)
    said = wait_ready(resident, 200)
    assert "1 older base backup cannot be restored" in said
    assert f"no: {lost.relative_to(root).with_suffix('')} is missing" in program("list")
    resident.terminate()


@pytest.mark.not_for_walg("the pieces of the open segment are deleted")
def test_the_end_of_the_wal_that_is_deleted_is_red_and_shipped_again(
    server: ThrowawayServer, make_program: MakeProgram, receiver: Receiver
) -> None:
    """It was confirmed, so nobody would ship it before its segment is full; on an idle server that may take days."""
    program = make_program(server, **WATCHED, PGBACKUP_WEBHOOK_URLS=f"{receiver.url}/hook")
    resident = program.run()
    program.wait_backups()
    server.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")
    wait_for(lambda: (s := program.json("status"))["verdict"] == "ok" and s["wal"]["lag_bytes"] == 0, resident.log)
    root = Path(program.env["PGBACKUP_REPOSITORY"].removeprefix("file://"))
    time.sleep(6)  # right after the start nobody is told
    (folder,) = root.glob("wal_005/*.partial")
    kept = sum(path.stat().st_size for path in folder.iterdir())
    shutil.rmtree(folder)
    wait_for(lambda: [a for a in alerts(receiver) if a["key"] == "wal:vanished"], resident.log)
    wait_for(lambda: folder.is_dir() and sum(p.stat().st_size for p in folder.iterdir()) >= kept / 2, resident.log)
    wait_ready(resident, 200)
    assert json.loads(program._ended("status", "--json").stdout)["wal"]["lag_bytes"] == 0
    resident.terminate()


@pytest.mark.not_for_walg("a segment is replaced")
def test_what_only_a_running_process_can_notice_is_in_status_as_well(
    server: ThrowawayServer, make_program: MakeProgram
) -> None:
    """One look at the bucket does not show that a segment was another one before, nor that a backup was there."""
    program = make_program(server, **WATCHED)
    resident = program.run()
    program.wait_backups()
    program("backup")
    server.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")
    server.execute("SELECT pg_switch_wal()")
    wait_for(lambda: (s := program.json("status"))["verdict"] == "ok" and s["wal"]["lag_bytes"] == 0, resident.log)
    root = Path(program.env["PGBACKUP_REPOSITORY"].removeprefix("file://"))
    oldest = min(root.glob("basebackups_005/*_backup_stop_sentinel.json"))
    time.sleep(12)  # the look that reads all of it, and the one that walks by
    newest = max(root.glob("wal_005/*.zst"))
    newest.write_bytes(b"something else")
    oldest.unlink()
    wait_ready(resident, 503)
    wait_for(lambda: "backup:vanished" in page(resident, "/status.json")[1], resident.log)
    keys_seen = {finding["key"] for finding in json.loads(program._ended("status", "--json").stdout)["findings"]}
    assert {"repository:replaced", "backup:vanished"} <= keys_seen
    assert "critical" in program("status", exit_code=1)
    resident.terminate()


def test_a_backup_that_vanished_while_nothing_ran_is_told(server: ThrowawayServer, make_program: MakeProgram) -> None:
    """By `status` at once, and by the process that is started next."""
    program = make_program(server, **WATCHED)
    resident = program.run()
    program.wait_backups()
    program("backup")
    root = Path(program.env["PGBACKUP_REPOSITORY"].removeprefix("file://"))
    seen = root / "pgbackup_005" / "backups.json"
    wait_for(lambda: seen.exists() and len(json.loads(seen.read_bytes())["backups"]) == 2, resident.log)
    resident.terminate()
    oldest = min(root.glob("basebackups_005/*_backup_stop_sentinel.json"))
    oldest.unlink()
    keys_seen = {finding["key"] for finding in json.loads(program._ended("status", "--json").stdout)["findings"]}
    assert "backup:vanished" in keys_seen
    resident = program.run()
    wait_for(lambda: "backup:vanished" in page(resident, "/status.json")[1], resident.log)
    resident.terminate()


def test_confirmed_wal_that_vanished_while_nothing_ran_is_critical(
    server: ThrowawayServer, make_program: MakeProgram
) -> None:
    """The server need not keep it, so it is not WAL that merely is late."""
    program = make_program(server, **WATCHED)
    resident = program.run()
    program.wait_backups()
    server.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")
    wait_for(lambda: program.json("status")["wal"]["lag_bytes"] == 0, resident.log)
    resident.terminate()
    assert "wal:vanished" not in program._ended("status", "--json").stdout
    root = Path(program.env["PGBACKUP_REPOSITORY"].removeprefix("file://"))
    for piece in root.glob("wal_005/*.partial/*"):
        piece.unlink()
    document = json.loads(program._ended("status", "--json").stdout)
    assert {"wal:vanished": "critical"}.items() <= {f["key"]: f["severity"] for f in document["findings"]}.items()


def test_postgres_stopped_and_back(make_server: ServerFactory, make_program: MakeProgram, receiver: Receiver) -> None:
    server = make_server()
    program = make_program(server, **WATCHED, PGBACKUP_WEBHOOK_URLS=f"{receiver.url}/hook")
    resident = program.run()
    program.wait_backups()
    wait_ready(resident, 200)
    server.stop("immediate")
    assert "the server does not answer" in wait_ready(resident, 503)
    assert "the server does not answer" in program("status", exit_code=1)
    wait_for(lambda: [a for a in alerts(receiver) if a["key"] == "server:unreachable"], resident.log)
    server.start()
    wait_ready(resident, 200)
    resident.terminate()


def test_a_server_that_was_never_there_is_told_of(
    make_server: ServerFactory, make_program: MakeProgram, receiver: Receiver
) -> None:
    """The repository's URL needs the server, so nothing else has begun yet."""
    server = make_server(start=False)
    program = make_program(server, **WATCHED, PGBACKUP_WEBHOOK_URLS=f"{receiver.url}/hook")
    program.env["PGBACKUP_REPOSITORY"] += "/{system_identifier}"
    resident = program.run()
    opened = wait_for(lambda: [a for a in alerts(receiver) if a["key"] == "server:unreachable"], resident.log)
    assert opened[0]["severity"] == "critical"
    assert "the server does not answer" in wait_ready(resident, 503)
    server.start()
    program.wait_backups()
    wait_ready(resident, 200)
    resident.terminate()


def test_a_role_that_is_made_later_is_waited_for(server: ThrowawayServer, make_program: MakeProgram) -> None:
    """With a URL that needs the server as without: a process that ended would show no page and tell nobody."""
    program = make_program(server, **WATCHED, PGUSER="made_later")
    program.env["PGBACKUP_REPOSITORY"] += "/{system_identifier}"
    resident = program.run()
    wait_for(lambda: 'role "made_later" does not exist' in page(resident, "/readyz")[1], resident.log)
    server.execute("CREATE ROLE made_later LOGIN REPLICATION IN ROLE pg_monitor")
    program.wait_backups()
    wait_ready(resident, 200)
    resident.terminate()


def test_an_alert_endpoint_that_hangs_breaks_nothing(
    server: ThrowawayServer, make_program: MakeProgram, receiver: Receiver
) -> None:
    receiver.default = (200, {}, 30.0)
    program = make_program(
        server, **WATCHED, PGBACKUP_WEBHOOK_URLS=f"{receiver.url}/hook nosuchscheme://x", SENTRY_DSN=receiver.dsn
    )
    resident = program.run()
    program.wait_backups()
    wait_for(lambda: alerts(receiver), resident.log)
    server.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")
    wait_for(lambda: program.json("list")["recoverable"], resident.log)
    assert "alert-config" in page(resident, "/status.json")[1]
    assert resident.terminate() < 13


def test_the_channels_can_be_tried(server: ThrowawayServer, make_program: MakeProgram, receiver: Receiver) -> None:
    program = make_program(server, PGBACKUP_WEBHOOK_URLS=f"{receiver.url}/hook", SENTRY_DSN=receiver.dsn)
    tried = program.json("alerts", "test")["channels"]
    assert [(t["channel"], t["ok"]) for t in tried] == [("webhook 127.0.0.1", True), ("sentry 127.0.0.1", True)]
    assert alerts(receiver)[0]["status"] == "test"
    receiver.default = (500, {}, 0.0)
    assert "HTTP 500" in program("alerts", "test", exit_code=1)
    assert "no channel" in make_program(server)("alerts", "test", exit_code=2)
