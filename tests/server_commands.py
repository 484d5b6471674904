"""Commands for a server to run: pgbackup with an environment in an archive_command or a restore_command."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

from pgbackup.postgres.throwaway import ThrowawayServer
from tests.fix_app import Program

ROOT = Path(__file__).parents[1]


def words(program: Program, *arguments: str) -> str:
    """A command line for Postgres to run, with the environment of the program in it."""
    carried = [
        f"{name}={value}" for name, value in program.env.items() if name.startswith(("PGBACKUP_", "WAL", "AWS_"))
    ]
    line = ["env", f"PYTHONPATH={ROOT}", *carried, sys.executable, "-P", "-m", "pgbackup", *arguments]
    return shlex.join(line).replace("%", "%%").replace("%%p", "%p").replace("%%f", "%f")


def archive(server: ThrowawayServer) -> None:
    """Wait until everything up to now is archived."""
    name = server.execute("SELECT pg_walfile_name(pg_switch_wal())")[0][0]
    deadline = time.monotonic() + 30
    while True:
        last, failed = server.execute("SELECT last_archived_wal, last_failed_wal FROM pg_stat_archiver")[0]
        if last is not None and last >= name:
            return
        assert time.monotonic() < deadline, f"{name} is not archived; {last=} {failed=}\n{server.log_tail(40)}"
        time.sleep(0.1)
