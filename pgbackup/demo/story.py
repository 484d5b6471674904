"""What the demo does, act by act: a live database, an accident, the loss of the whole machine, and the way back.

Every claim is checked: the rows of the restored server are compared with those that the lost one had just before the
accident. Whatever fails raises a PgbackupError that says what; whatever happens, nothing is left behind.
"""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pgbackup.demo.account import Account, clock_text
from pgbackup.demo.program import Program, RunningProgram
from pgbackup.demo.s3_server import S3Server
from pgbackup.demo.shop import ROLE, Customers, count_rows, open_shop, server_time
from pgbackup.errors import CheckFailed, ToolError
from pgbackup.postgres.binaries import require_installation
from pgbackup.postgres.table_checksums import TableChecksum, TableName, describe_differences, table_checksums
from pgbackup.postgres.throwaway import ClusterOptions, ThrowawayServer, create_cluster
from pgbackup.postgres.unprivileged import make_workspace, server_account

_BUSY_SECONDS = 3.0
_BACKUP_TIMEOUT_SECONDS = 60.0
_CONFIRM_TIMEOUT_SECONDS = 20.0
_POLL_SECONDS = 0.25
_SETTINGS = {"shared_buffers": "32MB", "wal_level": "replica", "timezone": "UTC", "log_timezone": "UTC"}
_CONFIRMED = "SELECT coalesce(bool_or(flush_lsn >= %s::pg_lsn), false) FROM pg_stat_replication WHERE usename = %s"


@dataclass(frozen=True, slots=True)
class JustBefore:
    """The last moment before the accident, and what every table held then."""

    moment: datetime
    tables: dict[TableName, TableChecksum]


@dataclass(frozen=True, slots=True)
class Stage:
    """What the acts share."""

    account: Account
    directory: Path
    server: ThrowawayServer
    program: Program
    cleanup: ExitStack


def tell_story(account: Account, *, s3: bool = False) -> None:
    """Play all acts. Raises PgbackupError when one fails."""
    with ExitStack() as cleanup:
        stage = _set_up(account, cleanup, s3=s3)
        running = _protect(stage)
        before = _drop_orders(stage)
        _lose_machine(stage, running)
        restored = _restore(stage, before)
        _compare(stage, before, restored)
    account.tell("everything is stopped and removed again")


def _set_up(account: Account, cleanup: ExitStack, *, s3: bool) -> Stage:
    account.title("A database")
    owner = server_account()
    installation = require_installation()
    directory = make_workspace(owner, "pgbackup-demo-")
    cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
    with account.timed(f"PostgreSQL {installation.version} runs, a throw-away server in {directory}"):
        create_cluster(installation, directory / "data", ClusterOptions(settings=_SETTINGS), account=owner)
        server = ThrowawayServer(installation, directory / "data", account=owner)
        cleanup.callback(server.close)
        server.start()
        open_shop(server)
    settings = {"PGBACKUP_DSN": server.conninfo(user=ROLE), "PGBACKUP_WAL_FLUSH_INTERVAL": "1s", "PGBACKUP_HTTP": "off"}
    if s3:
        with account.timed("SeaweedFS runs, an S3 server on this machine"):
            store = S3Server(directory / "s3")
            cleanup.callback(store.close)
            store.make_bucket()
        settings |= store.settings()
    else:
        settings |= {"PGBACKUP_REPOSITORY": f"file://{directory}/repository"}
    return Stage(account, directory, server, Program(directory, settings), cleanup)


def _protect(stage: Stage) -> RunningProgram:
    stage.account.title("pgbackup run")
    running = stage.program.start("run")
    stage.cleanup.callback(running.close)
    customers = Customers(stage.server)
    stage.cleanup.callback(customers.close)
    stage.account.tell("`pgbackup run` streams WAL, with a role that may replicate and nothing else; rows are written")
    with stage.account.timed("the first base backup is complete, and rows never stopped"):
        _wait_for_backup(stage, running)
    time.sleep(_BUSY_SECONDS)
    customers.stop()
    stage.account.tell(f"{count_rows(stage.server, 'orders')} orders, each a commit of its own")
    return running


def _wait_for_backup(stage: Stage, running: RunningProgram) -> None:
    deadline = time.monotonic() + _BACKUP_TIMEOUT_SECONDS
    problem = ""
    while time.monotonic() < deadline:
        running.check_alive()
        try:
            if any(backup["restorable"] for backup in stage.program.read_json("list")["backups"]):
                return
        except ToolError as exc:  # at first there is no repository
            problem = str(exc)
        time.sleep(_POLL_SECONDS)
    raise ToolError("there is no restorable base backup in time", detail=f"{problem}\n{running.log_tail()}".strip())


def _drop_orders(stage: Stage) -> JustBefore:
    stage.account.title("An accident")
    before = JustBefore(server_time(stage.server), table_checksums(stage.server))
    time.sleep(0.1)
    stage.server.execute("DROP TABLE orders")
    stage.account.tell(f"DROP TABLE orders, right after {clock_text(before.moment)}")
    visits = Customers(stage.server, ordering=False)
    stage.cleanup.callback(visits.close)
    time.sleep(_BUSY_SECONDS / 2)
    visits.stop()
    stage.account.tell(f"nobody noticed: {count_rows(stage.server, 'visits')} more commits in another table")
    return before


def _lose_machine(stage: Stage, running: RunningProgram) -> None:
    with stage.account.timed("what was committed last is in the repository, and the server knows it"):
        _wait_for_confirmation(stage, running)
    with stage.account.timed("pgbackup has stopped"):
        running.stop()
    stage.server.kill()
    shutil.rmtree(stage.server.data_directory)
    stage.account.tell("kill -9 of the server, and its data directory is deleted: only the repository is left")


def _wait_for_confirmation(stage: Stage, running: RunningProgram) -> None:
    lsn = stage.server.execute("SELECT pg_current_wal_flush_lsn()::text")[0][0]
    deadline = time.monotonic() + _CONFIRM_TIMEOUT_SECONDS
    while stage.server.execute(_CONFIRMED, [lsn, ROLE]) != [(True,)]:
        running.check_alive()
        if time.monotonic() > deadline:
            raise ToolError(f"pgbackup has not confirmed {lsn} in time", detail=running.log_tail())
        time.sleep(_POLL_SECONDS)


def _restore(stage: Stage, before: JustBefore) -> ThrowawayServer:
    stage.account.title("The way back")
    target = stage.server.account.make_directory(stage.directory / "restored")
    with stage.account.timed(f"`pgbackup restore --to {clock_text(before.moment)}` into another directory"):
        stage.program.run("restore", "--target", str(target), "--to", before.moment.isoformat())
    restored = ThrowawayServer(stage.server.installation, target, account=stage.server.account)
    stage.cleanup.callback(restored.close)
    with stage.account.timed("PostgreSQL has started there, recovered to that moment and takes writes"):
        restored.start()
        restored.wait_promoted()
    return restored


def _compare(stage: Stage, before: JustBefore, restored: ThrowawayServer) -> None:
    differences = describe_differences(before.tables, table_checksums(restored))
    if differences:
        raise CheckFailed(
            "the restored server differs from the lost one",
            detail="left: lost, right: restored\n" + "\n".join(differences),
        )
    stage.account.tell("the restored tables are equal, row by row, to those of the last moment before the accident:")
    for name, checksum in sorted(before.tables.items()):
        stage.account.detail(f"{name.table}: {checksum.rows} rows")
