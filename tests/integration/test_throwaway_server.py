"""The servers of the other tests are what they claim to be: every major version starts, crashes, replicates."""

from __future__ import annotations

import pytest

from pgbackup.errors import PostgresError, ToolError
from tests.fix_postgres import PASSWORD, ROLE, ServerFactory
from tests.workload import CounterWriter, assert_counter, compare_rows, read_counter


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
