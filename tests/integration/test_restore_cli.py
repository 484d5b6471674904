"""``pgbackup restore`` as a command: plans, documents, options, refusals."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pgbackup.repository import keys
from pgbackup.storage.file import FileStore
from tests.restoring import SETTINGS, Repository, assert_does_not_start, insert, rows


class Command:
    """Runs ``pgbackup restore`` on a repository."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository

    def __call__(self, *arguments: str | Path, code: int = 0, **environ: str) -> str:
        values = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
        values |= {"PGBACKUP_REPOSITORY": self.repository.store.url, **environ}
        done = subprocess.run(
            [sys.executable, "-m", "pgbackup", "restore", *map(str, arguments)],
            env=values, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr


@pytest.fixture
def source(make_server):
    server = make_server(settings=SETTINGS)
    server.execute("CREATE TABLE t (n int)")
    return server


@pytest.fixture
def command(make_server, workspace, source) -> Command:
    repository = Repository(make_server, store=FileStore((workspace / "repository").as_uri()))
    repository.archiver.backup(source)
    for n in (1, 2, 3):
        insert(source, n)
    repository.archiver.wal(source)
    return Command(repository)


def test_a_plan_is_printed_and_nothing_is_written(command, tmp_path):
    target = tmp_path / "target"
    text = command("--target", target, "--plan")
    for word in ("backup:", "target:", "timeline:", "WAL:", "download:", "space:", "the end of the archive"):
        assert word in text
    document = json.loads(command("--target", target, "--plan", "--json"))
    assert document["wal"]["files"][-1]["source"] == "tail"
    assert document["target"] == {"kind": "latest", "value": None, "exclusive": False, "action": "promote"}
    assert document["download_bytes"] > 0
    assert document["directory"] == str(target)
    assert not target.exists()


def test_a_restore_tells_what_it_did(command, source, make_server):
    target = make_server.new_directory("the target")
    text = command("--target", target, "--immediate")
    assert "every file checked against the manifest" in text
    whom = "" if source.account.uid is None else f", as {source.account.name},"
    assert f"Start it{whom} with: pg_ctl -D '{target}' start" in text
    assert "replication slots" in text
    assert "pg_wal_replay_resume" not in text
    server = make_server.over(target, source.major)
    server.wait_promoted()
    assert rows(server) == []


def test_the_newest_backup_that_is_whole_is_taken_on_the_worst_day(command, source, make_server, tmp_path):
    """An object of the newest backup is gone, and our notes are damaged: an older backup and all WAL are there."""
    repository = command.repository
    source.execute("SELECT pg_switch_wal()")
    newest = repository.archiver.backup(source)
    insert(source, 4)
    repository.archiver.wal(source)
    repository.store.delete([keys.control_tar(newest, repository.codec.extension)])
    repository.store.put(keys.CLUSTER, b"")
    repository.store.put(keys.gap(1, 0, 1 << 20), b"{")
    target = make_server.new_directory("target")
    text = command("--target", target)
    assert f"{newest} is newer but not used: its pg_control.tar is missing" in text
    server = make_server.over(target, source.major)
    server.wait_promoted()
    assert rows(server) == [1, 2, 3, 4]
    said = command("--target", tmp_path / "named", "--backup", newest, code=6)
    assert "its pg_control.tar is missing" in said


def test_a_restore_as_a_document(command, source, make_server):
    target = make_server.new_directory("target")
    xid = source.execute("SELECT xmin::text FROM t WHERE n = 2")[0][0]
    document = json.loads(command("--target", target, "--to-xid", xid, "--exclusive", "--json"))
    assert document["verified"]
    assert document["plan"]["target"] == {"kind": "xid", "value": xid, "exclusive": True, "action": "promote"}
    server = make_server.over(target, source.major)
    server.wait_promoted()
    assert rows(server) == [1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--to", "2026-01-01", "--latest"], 2, "different targets"),
        (["--to", "2026-01-01 10:00"], 2, "no time zone"),
        (["--to", "yesterday"], 2, "is not a time"),
        (["--to", "10 parsecs ago"], 2, "no unit of time"),
        (["--to", "9999-12-31T00:00:00Z"], 6, "beyond the archive"),
        (["--to", "2001-01-01T00:00:00Z"], 6, "before the end of the first backup"),
        (["--to", "2001-01-01 00:00", "--timezone", "Europe/Nowhere"], 2, "no time zone is named"),
        (["--to-lsn", "nonsense"], 2, "not an LSN"),
        (["--to-lsn", "FF/0"], 6, "beyond the archive"),
        (["--to-xid", "many"], 2, "not a transaction id"),
        (["--to-name", "x" * 70], 2, "restore point"),
        (["--to-name", "nowhere"], 6, "is not in the archived WAL"),
        (["--to", ""], 2, "is not a time"),
        (["--to-lsn", ""], 2, "not an LSN"),
        (["--to-xid", ""], 2, "not a transaction id"),
        (["--to-name", ""], 2, "restore point is empty"),
        (["--immediate", "--exclusive"], 2, "cannot be exclusive"),
        (["--backup", "base_X"], 6, "no backup base_X"),
        (["--timeline", "7"], 6, "no timeline 7"),
        (["--timeline", "0"], 2, "0 is not in the range"),
        (["--tablespace-map", "x"], 2, "OLD=NEW"),
        (["--tablespace-map", "/a=/b"], 6, "no tablespace /a"),
    ],
)
def test_what_is_refused(command, tmp_path, arguments, code, words):
    said = command("--target", tmp_path / "target", *arguments, code=code)
    assert words in said
    assert not (tmp_path / "target").exists()


def test_a_zone_that_was_named_counts_for_naive_times(command, tmp_path):
    said = command("--target", tmp_path / "t", "--to", "2001-06-01 12:00", "--timezone", "Europe/Berlin", code=6)
    assert "2001-06-01 10:00:00+00" in said
    said = command("--target", tmp_path / "t", "--to", "2001-06-01 12:00", code=6, PGBACKUP_TIMEZONE="Europe/Berlin")
    assert "2001-06-01 10:00:00+00" in said


def test_an_error_as_a_document(command, tmp_path):
    said = command("--target", tmp_path / "t", "--to-lsn", "FF/0", "--json", code=6)
    error = json.loads(said[said.index("{") : said.rindex("}") + 1])["error"]
    assert error["exit_code"] == 6
    assert "--latest" in error["hint"]


def test_a_directory_whose_name_is_no_text(command, make_server):
    target = make_server.workspace / os.fsdecode(b"target \xff")
    assert "target \\udcff" in command("--target", target, "--plan")
    assert json.loads(command("--target", target, "--plan", "--json"))["directory"] == str(target)


def test_a_disk_that_cannot_take_the_wal(command, source, make_server):
    """A limit for the size of files stands in for a full disk: no data file is that large, WAL segments are."""
    target = make_server.new_directory("target")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, before[1]))
    try:
        said = command("--target", target, code=6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert re.search(r"pgbackup_wal/[0-9A-F]{24} cannot be written: File too large", said)
    assert "Traceback" not in said
    assert_does_not_start(target, source, command.repository)
    command("--target", target)
    server = make_server.over(target, source.major)
    server.wait_promoted()
    assert rows(server) == [1, 2, 3]
