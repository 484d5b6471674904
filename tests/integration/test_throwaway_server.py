"""The servers of the other tests are what they claim to be: every major version starts, crashes, replicates."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pgbackup.errors import PostgresError, ToolError
from pgbackup.postgres.throwaway import ThrowawayServer
from tests.fix_postgres import PASSWORD, ROLE, ServerFactory
from tests.workload import CounterWriter, assert_counter, compare_rows, read_counter

ROOT = Path(__file__).parents[2]


def test_starts_with_the_options_asked_for(make_server: ServerFactory, pg_major: int) -> None:
    server = make_server(pg_major, segment_mb=1, data_checksums=False, settings={"work_mem": "5MB"})
    row = server.execute(
        "SELECT current_setting('server_version_num')::int / 10000, current_setting('wal_segment_size'),"
        " current_setting('data_checksums'), current_setting('work_mem'), current_setting('server_encoding')"
    )
    assert row == [(pg_major, "1MB", "off", "5MB", "UTF8")]


def test_acknowledged_rows_survive_kill_9(make_server: ServerFactory, pg_major: int) -> None:
    server = make_server(pg_major)
    with CounterWriter(server.conninfo(), reconnect=True, pause_seconds=0) as writer:
        writer.wait_for(50)
        server.kill()
        assert not server.running
        server.start()
        writer.wait_more(50)
        commits = writer.stop()
    assert_counter(server, commits)
    numbers = [commit.n for commit in commits]
    assert numbers == sorted(set(numbers))
    assert set(read_counter(server)) <= set(numbers) | set(writer.uncertain)


def test_standby_follows_and_can_be_promoted(make_server: ServerFactory, pg_major: int) -> None:
    primary = make_server(pg_major)
    with CounterWriter(primary.conninfo()) as writer:
        standby = make_server.standby_of(primary, slot="standby")
        writer.wait_more(20)
        writer.stop()
    end = primary.execute("SELECT pg_current_wal_flush_lsn()::text")[0][0]
    received = "SELECT coalesce(pg_last_wal_receive_lsn() >= %s::pg_lsn, false)"
    deadline = time.monotonic() + 60
    while standby.execute(received, (end,)) != [(True,)]:
        assert time.monotonic() < deadline, "the standby does not follow"
        time.sleep(0.05)
    primary.stop("fast")
    standby.promote()
    primary.start()
    compare_rows(primary, standby)
    standby.execute("CREATE TABLE only_here ()")
    with pytest.raises(AssertionError, match="only_here"):
        compare_rows(primary, standby)


def test_passwords_are_asked_for(make_server: ServerFactory) -> None:
    server = make_server(host_auth="scram-sha-256")
    with pytest.raises(PostgresError, match="refused"):
        server.execute("SELECT no_such_column")
    rows = server.execute("SELECT rolreplication, rolsuper FROM pg_roles WHERE rolname = %s", [ROLE])
    assert rows == [(True, False)]
    with CounterWriter(server.conninfo(password=PASSWORD)) as writer:
        assert writer.last().lsn is not None


def test_fresh_cluster_has_its_own_identifier(make_server: ServerFactory) -> None:
    text = "SELECT system_identifier FROM pg_control_system()"
    one, two, three = make_server(), make_server(), make_server(fresh=True)
    assert one.execute(text) == two.execute(text)
    assert one.execute(text) != three.execute(text)


def test_failed_start_shows_the_log(make_server: ServerFactory) -> None:
    server = make_server(start=False)
    with pytest.raises(ToolError) as caught:
        server.start(settings={"shared_preload_libraries": "no_such_library"})
    assert "no_such_library" in caught.value.detail
    assert not server.running


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts servers as another user")
def test_programs_that_only_root_can_read_are_copied(make_server: ServerFactory, tmp_path: Path) -> None:
    """As in a virtual environment below /root: the server's user gets a copy, with the libraries beside it."""
    server = make_server(start=False)
    prefix = server.installation.bindir.parent
    closed = tmp_path / "site" / prefix.parent.name / prefix.name
    shutil.copytree(prefix, closed, symlinks=True, ignore=shutil.ignore_patterns("include"))
    libraries = prefix.parent.with_name(prefix.parent.name + ".libs")
    if libraries.exists():
        shutil.copytree(libraries, tmp_path / "site" / libraries.name)
    (tmp_path / "site").chmod(0o700)
    installation = replace(server.installation, bindir=closed / "bin")
    with ThrowawayServer(installation, server.data_directory, account=server.account) as copy:
        copy.start()
        assert copy.execute("SELECT 1") == [(1,)]
        assert not Path(f"/proc/{copy.pid}/exe").readlink().is_relative_to(tmp_path)


def test_the_server_dies_with_us(make_server: ServerFactory, tmp_path: Path) -> None:
    server = make_server(start=False)
    program = (
        "import sys, time; from pathlib import Path; from pgbackup.postgres.binaries import inspect_directory;"
        " from pgbackup.postgres.throwaway import ThrowawayServer;"
        " server = ThrowawayServer(inspect_directory(Path(sys.argv[1])), Path(sys.argv[2])); server.start();"
        " print(server.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(server.installation.bindir), str(server.data_directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        owner.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the right away")
def test_a_restore_command_may_read_what_is_closed_to_others(make_server: ServerFactory, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("for root")
    tmp_path.chmod(0o700)
    server = make_server(start=False)
    server = make_server.over(server.data_directory, reads_everything=True)
    server.execute(f"COPY (SELECT 1) TO PROGRAM 'cat {secret} > {make_server.workspace}/seen'")
    assert (make_server.workspace / "seen").read_text() == "for root"
    assert server.execute("SELECT 1") == [(1,)]
