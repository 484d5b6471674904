"""Running servers, configuration that is missing, the tablespace map."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys

import pytest

from pgbackup.postgres.data_directory import (
    SUBDIRECTORIES,
    Owner,
    complete_structure,
    running_server,
    write_file,
    write_missing_configuration,
)
from pgbackup.postgres.tablespace_map import format_tablespace_map, parse_tablespace_map


def pid_file(directory, *lines):
    (directory / "postmaster.pid").write_text("\n".join(map(str, lines)) + "\n")


def test_nothing_runs_in_an_empty_or_missing_directory(tmp_path):
    assert running_server(tmp_path) == ""
    assert running_server(tmp_path / "missing") == ""


def test_a_live_process_runs(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        pid_file(tmp_path, process.pid)
        assert running_server(tmp_path) == f"process {process.pid}"
        process.communicate()
    assert running_server(tmp_path) == ""


def test_our_own_process_number_is_a_left_over_of_another_container(tmp_path):
    pid_file(tmp_path, os.getpid())
    assert running_server(tmp_path) == ""


def test_a_server_whose_process_is_invisible_answers_on_its_socket(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / ".s.PGSQL.5433"))
        listener.listen()
        pid_file(tmp_path, 1 << 22, "/data", 1700000000, 5433, tmp_path)
        assert ".s.PGSQL.5433" in running_server(tmp_path)
    assert running_server(tmp_path) == ""


@pytest.mark.parametrize("content", ["", "not a number\n", "\n\n\n\n\n", "12 34\n"])
def test_a_damaged_pid_file_is_nobody(tmp_path, content):
    (tmp_path / "postmaster.pid").write_text(content)
    assert running_server(tmp_path) == ""


def test_a_minimal_configuration_is_written_only_where_it_is_missing(tmp_path):
    (tmp_path / "pg_hba.conf").write_text("local all all trust\n")
    notes = write_missing_configuration(
        tmp_path,
        None,
        saved={"shared_buffers": "1GB", "data_directory": "/var/lib/x"},
        original={"config_file": "/etc/postgresql/15/main/postgresql.conf"},
    )
    assert [note.split(":")[0] for note in notes] == ["wrote a minimal postgresql.conf", "wrote an empty pg_ident.conf"]
    assert "/etc/postgresql/15/main/postgresql.conf" in notes[0]
    text = (tmp_path / "postgresql.conf").read_text()
    assert "#shared_buffers = '1GB'" in text
    assert "data_directory" not in text
    assert "listen_addresses = ''" in text
    assert (tmp_path / "pg_hba.conf").read_text() == "local all all trust\n"


def test_a_minimal_pg_hba_lets_local_users_in_as_themselves(tmp_path):
    write_missing_configuration(tmp_path, None, saved={}, original={})
    lines = [line for line in (tmp_path / "pg_hba.conf").read_text().splitlines() if not line.startswith("#")]
    assert all(line.startswith("local") and line.endswith("peer") for line in lines)


def test_directories_that_a_server_expects(tmp_path):
    complete_structure(tmp_path, None)
    complete_structure(tmp_path, None)
    for name in SUBDIRECTORIES:
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700


def test_files_are_replaced_and_closed_to_others(tmp_path):
    write_file(tmp_path / "a", "one", None)
    write_file(tmp_path / "a", b"two", None)
    assert (tmp_path / "a").read_bytes() == b"two"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_the_owner_is_that_of_the_nearest_directory(tmp_path):
    if os.geteuid() != 0:
        assert Owner.of(tmp_path) is None
        return
    os.chown(tmp_path, 12345, 54321)
    assert Owner.of(tmp_path / "not" / "there") == Owner(12345, 54321)
    write_file(tmp_path / "a", "x", Owner(12345, 54321))
    assert (tmp_path / "a").stat().st_uid == 12345


def test_tablespace_maps():
    locations = {16384: "/mnt/fast disk", 16385: "/mnt/odd\n\\name"}
    data = format_tablespace_map(locations)
    assert data == b"16384 /mnt/fast disk\n16385 /mnt/odd\\\n\\\\name\n"
    assert parse_tablespace_map(data) == locations
    assert parse_tablespace_map(b"") == {}
    with pytest.raises(ValueError, match="tablespace_map"):
        parse_tablespace_map(b"nonsense\n")
