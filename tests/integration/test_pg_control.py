"""The control file of every version, against what the server says of itself."""

from __future__ import annotations

import pytest

from pgbackup.core.backup import CONTROL_FILE
from pgbackup.errors import PostgresError
from pgbackup.postgres.pg_control import MINIMA, read_control_file


def test_the_control_file_says_what_the_server_says(make_server, pg_major):
    server = make_server(pg_major, segment_mb=4, settings={"max_connections": 33, "max_prepared_transactions": 3})
    server.execute("CHECKPOINT")
    found = read_control_file(server.data_directory)
    system, catalog = server.execute("SELECT system_identifier, catalog_version_no FROM pg_control_system()")[0]
    redo, timeline = server.execute("SELECT redo_lsn::text, timeline_id FROM pg_control_checkpoint()")[0]
    assert (found.system_identifier, found.catalog_version) == (system % (1 << 64), catalog)
    assert (str(found.redo_lsn), found.timeline) == (redo, timeline)
    assert found.segment_bytes == 4 << 20
    assert found.state == "in production"
    assert found.minima == {name: int(server.execute(f"SHOW {name}")[0][0]) for name in MINIMA}
    server.stop("fast")
    assert read_control_file(server.data_directory).state == "shut down"


@pytest.mark.parametrize("where", [0, 30, 180, 291])
def test_a_damaged_control_file_is_refused(make_server, where):
    server = make_server(start=False)
    path = server.data_directory / CONTROL_FILE
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(PostgresError, match="is damaged"):
        read_control_file(server.data_directory)


@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(8192)])
def test_what_is_no_control_file(tmp_path, content):
    (tmp_path / "global").mkdir()
    with pytest.raises(PostgresError, match="cannot read"):
        read_control_file(tmp_path)
    (tmp_path / CONTROL_FILE).write_bytes(content)
    with pytest.raises(PostgresError, match="is damaged"):
        read_control_file(tmp_path)
