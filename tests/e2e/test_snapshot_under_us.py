"""A server set back to an older copy of its disk: nothing in the bucket is overwritten, and people hear of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.e2e.test_supervisor import WATCHED, alerts, wait_for, wait_ready
from tests.fix_app import MakeProgram, Restore, wait_shipped
from tests.fix_postgres import ServerFactory
from tests.fix_receiver import Receiver

CONFLICT = ("holds another segment", "differs from the stored", "set back")


def test_shipping_stops_and_the_first_history_stays(
    make_server: ServerFactory, make_program: MakeProgram, receiver: Receiver, restore: Restore
) -> None:
    server = make_server(settings={"fsync": "off"})
    program = make_program(server, **WATCHED, PGBACKUP_WEBHOOK_URLS=f"{receiver.url}/hook")
    server.execute("CREATE TABLE t AS SELECT 'before' AS era, generate_series(1, 100) AS n")
    resident = program.run()
    program.wait_backups()
    wait_ready(resident, 200)
    wait_shipped(program, server)
    server.stop()
    copy = server.data_directory.with_name("copy")
    subprocess.run(["cp", "-a", server.data_directory, copy], check=True)
    server.start()
    server.execute("INSERT INTO t SELECT 'first', generate_series(1, 50000)")
    server.execute("SELECT pg_switch_wal()")
    wait_shipped(program, server)
    stored = contents(program.env["PGBACKUP_REPOSITORY"])

    server.stop()
    shutil.rmtree(server.data_directory)
    copy.rename(server.data_directory)
    server.start()
    server.execute("INSERT INTO t SELECT 'second', generate_series(1, 70000)")
    server.execute("SELECT pg_switch_wal()")
    # While the server was down the page said just that; it goes on to say what came back.
    wait_for(lambda: any(words in wait_ready(resident, 503) for words in CONFLICT), resident.log)
    opened = wait_for(lambda: [a for a in alerts(receiver) if a["severity"] == "critical"], resident.log)
    assert all(alert["hint"] for alert in opened), opened
    wait_for(lambda: any("older copy" in a["summary"] for a in alerts(receiver)), lambda: alerts(receiver))
    status = program("status", exit_code=1)
    assert "CRITICAL" in status
    resident.terminate()
    now = contents(program.env["PGBACKUP_REPOSITORY"])
    assert {name: now.get(name) for name in stored} == stored

    restored = restore(program, server.major)
    assert restored.execute("SELECT era, count(*) FROM t GROUP BY era ORDER BY era") == [
        ("before", 100),
        ("first", 50000),
    ]


def contents(url: str) -> dict[str, bytes]:
    """Every WAL object that is not a piece (pieces go when their segment is whole)."""
    folder = Path(url.removeprefix("file://")) / "wal_005"
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
