"""The whole program with a tool as its engine, and what tests of such engines look at."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.engines.wale.base_backup import ToolBackup
from pgbackup.engines.wale.dialects import PushOptions, dialect
from pgbackup.engines.wale.driver import ToolDriver
from pgbackup.engines.wale.engine import ToolEngine
from pgbackup.engines.wale.environment import StorageSettings, tool_environment
from pgbackup.postgres.libpq_environment import libpq_environment
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.open import object_flusher
from tests.fix_app import MakeProgram, Program
from tests.fix_postgres import ServerFactory

_PRETEND = Path(__file__).parent / "data" / "pretend_tool.py"
_ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


def with_tool(
    make: MakeProgram, server: ThrowawayServer, engine: str, tool: Path, *, s3: bool = False, **settings: str
) -> Program:
    """pgbackup with a tool as its engine, connecting as the superuser: a local base backup needs more rights."""
    program = make(server, s3=s3, PGBACKUP_ENGINE=engine, PGBACKUP_TOOL=str(tool), PGUSER="postgres", **settings)
    del program.env["PGBACKUP_WAL_FLUSH_INTERVAL"]
    return program


def repository_folder(program: Program) -> Path:
    return Path(program.env["PGBACKUP_REPOSITORY"].removeprefix("file://"))


def stored_wal_names(program: Program) -> list[str]:
    folder = repository_folder(program) / "wal_005"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def fill(server: ThrowawayServer, begin: int, end: int) -> None:
    """Rows ``begin`` to ``end`` (exclusive), and the end of the segment."""
    server.execute("CREATE TABLE IF NOT EXISTS t (n int)")
    server.execute(f"INSERT INTO t SELECT generate_series({begin}, {end - 1})")
    server.execute("SELECT pg_switch_wal()")


def rows(server: ThrowawayServer) -> list[int]:
    return [n for (n,) in server.execute("SELECT n FROM t ORDER BY n")]


def wait_whole(program: Program, server: ThrowawayServer, timeout: float = 120) -> None:
    """Until every whole segment is confirmed to the server."""
    deadline = time.monotonic() + timeout
    here = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_flush_lsn() END"
    text = f"SELECT {here}::text, max(restart_lsn)::text FROM pg_replication_slots"
    while True:
        flushed, confirmed = (Lsn.parse(each) for each in server.execute(text)[0])
        # Not by the segments' names: that of a segment's first byte is the name of the one before it.
        if confirmed >= SegmentName.containing(1, flushed).start:
            return
        assert time.monotonic() < deadline, program.logs()
        time.sleep(0.1)


def start_restored(make_server: ServerFactory, directory: Path, major: int, **options: bool) -> ThrowawayServer:
    """A server over a restored directory whose pg_hba.conf may have been left out by the tool."""
    (directory / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 trust\n")
    server = make_server.over(directory, major, settings={"fsync": "off"}, **options)
    server.wait_promoted()
    return server


def tool_engine(
    name: str, program: Path, repository: Path, spool: Path, *, conninfo: str = "", **env: str
) -> ToolEngine:
    """The engine of a tool on a repository of files."""
    speaks = dialect(name)
    settings = StorageSettings(f"file://{repository}")
    libpq = libpq_environment(conninfo, application_name="test")
    driver = ToolDriver(speaks, program, tool_environment(speaks, settings, libpq, {**_ENVIRONMENT, **env}))
    how = ToolBackup(
        driver, Codec(Compression("zstd", 1)), conninfo, "test", "here", "", PushOptions(None, 2, None),
        settle=object_flusher(f"file://{repository}"),
    )  # fmt: skip
    return ToolEngine(how, wal_concurrency=2, spool_parent=spool)


def pretend_tool(folder: Path) -> Path:
    """The pretended tool as a program."""
    program = folder / "pretend"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {_PRETEND} "$@"\n')
    program.chmod(0o755)
    return program
