"""The real wal-g, where there is one on PATH, over repositories that pgbackup made: it lists, fetches, verifies and
plans deletions, and a server that it restored has the rows; and pgbackup over what it stored. Rules without the
program: tests/walg."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression, read_key
from pgbackup.storage.file import FileStore
from tests.fix_app import MakeProgram, Program, wait_shipped
from tests.fix_gpg import RSA, Keyring
from tests.fix_postgres import ServerFactory
from tests.server_commands import archive, words

WALG = shutil.which("wal-g") or ""
pytestmark = [pytest.mark.skipif(not WALG, reason="no wal-g on PATH"), pytest.mark.timeout(400)]

KEY = "a key of libsodium, or its begin"
CODECS = {
    "zstd": {},
    "lz4": {"PGBACKUP_COMPRESSION": "lz4"},
    "none": {"PGBACKUP_COMPRESSION": "none"},
    "zstd and libsodium": {"PGBACKUP_ENCRYPTION_KEY": KEY},
    "none and libsodium": {"PGBACKUP_ENCRYPTION_KEY": KEY, "PGBACKUP_COMPRESSION": "none"},
}
# Of every codec the newest server over both stores, of every other server two codecs.
CASES = [(18, codec, store) for codec in CODECS for store in ("file", "s3")] + [
    (major, codec, "file") for major in (14, 15, 16, 17) for codec in ("lz4", "zstd and libsodium")
]


@dataclass
class WalG:
    """wal-g with the environment that fits a program's repository."""

    env: dict[str, str]

    @classmethod
    def beside(cls, program: Program, home: Path) -> WalG:
        ours = program.env
        url = ours["PGBACKUP_REPOSITORY"]
        env = {name: value for name, value in ours.items() if name.startswith(("PG", "PATH")) and name[:3] != "PGB"}
        env |= {"HOME": str(home), "PGUSER": "postgres", "PGDATABASE": "postgres", "WALG_DOWNLOAD_FILE_RETRIES": "0"}
        if url.startswith("s3://"):
            names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
            env |= {name: ours[name] for name in names}
            env |= {"WALG_S3_PREFIX": url, "AWS_ENDPOINT": ours["AWS_ENDPOINT_URL"], "AWS_S3_FORCE_PATH_STYLE": "true"}
        else:
            env["WALG_FILE_PREFIX"] = url.removeprefix("file://")
        if "PGBACKUP_ENCRYPTION_KEY" in ours:
            env["WALG_LIBSODIUM_KEY"] = ours["PGBACKUP_ENCRYPTION_KEY"]
        return cls(env)

    def __call__(self, *arguments: str | Path) -> tuple[str, str]:
        """What it says on stdout and on stderr. Fails the test when it fails."""
        done = subprocess.run(
            [WALG, *map(str, arguments)], env=self.env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"wal-g {arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout, done.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments)[0])

    def command(self, *arguments: str) -> str:
        """A restore_command, in quotes."""
        kept = {name: value for name, value in self.env.items() if not name.startswith("PG")}
        line = shlex.join(["env", *(f"{name}={value}" for name, value in kept.items()), WALG, *arguments])
        return "'" + line.replace("'", "''") + "'"


def fill(program: Program, server: ThrowawayServer) -> int:
    """Two backups with rows and whole segments before, between and after them; returns the rows in whole segments."""
    resident = program.run()
    program.wait_backups()
    server.execute("CREATE TABLE t AS SELECT g AS n FROM generate_series(1, 1000) g")
    program("backup", "--label", "the second")
    server.execute("INSERT INTO t SELECT g FROM generate_series(1001, 3000) g")
    for _ in range(2):
        server.execute("SELECT pg_switch_wal()")
        server.execute("CREATE TEMPORARY TABLE x AS SELECT 1")
        server.execute("CHECKPOINT")
    wait_shipped(program, server)
    resident.terminate()
    return 3000


def recovered(
    walg: WalG, make_server: ServerFactory, server: ThrowawayServer, *fetch: str, target: Path
) -> ThrowawayServer:
    """A server over what wal-g fetched, recovered by wal-g's own wal-fetch."""
    walg("backup-fetch", target, *fetch)
    with (target / "postgresql.auto.conf").open("a") as file:
        file.write(f"restore_command = {walg.command('wal-fetch', '%f', '%p')}\narchive_mode = off\n")
    (target / "recovery.signal").touch()
    subprocess.run(["chown", "-R", f"{target.owner()}:{target.group()}", target], check=True)
    restored = make_server.over(target, server.major, settings={"fsync": "off"}, reads_everything=True)
    restored.wait_promoted()
    return restored


def timed(backups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With rounded times: Go shows the nanoseconds of a file."""
    return [each | {"time": round(datetime.fromisoformat(each["time"]).timestamp(), 2)} for each in backups]


@pytest.mark.parametrize(("major", "codec", "store"), CASES, ids=lambda value: str(value).replace(" ", "-"))
def test_wal_g_takes_what_pgbackup_writes(
    major: int, codec: str, store: str, make_server, make_program: MakeProgram, tmp_path: Path
) -> None:
    server = make_server(major)
    program = make_program(server, s3=store == "s3", **CODECS[codec])
    rows = fill(program, server)
    walg = WalG.beside(program, tmp_path)

    # Our backup-list is its backup-list, in every form.
    for flags in ([], ["--detail"], ["--pretty"], ["--pretty", "--detail"]):
        assert walg("backup-list", *flags)[0] == program("backup-list", *flags)
    for flags in (["--json"], ["--json", "--detail"]):
        assert timed(walg.json("backup-list", *flags)) == timed(json.loads(program("backup-list", *flags)))
    backups = [each["backup_name"] for each in walg.json("backup-list", "--json")]
    assert len(backups) == 2

    timeline = walg.json("wal-show", "--detailed-json")[0]
    assert (timeline["id"], timeline["status"], timeline["missing_segments"]) == (1, "OK", [])
    assert sorted(each["backup_name"] for each in timeline["backups"]) == backups
    verdict = walg.json("wal-verify", "integrity", "timeline", "--json")
    assert (verdict["integrity"]["status"], verdict["timeline"]["status"]) == ("OK", "OK")

    walg("wal-fetch", timeline["start_segment"], tmp_path / "theirs")
    program("wal-fetch", "--no-prefetch", timeline["start_segment"], tmp_path / "ours")
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "ours").read_bytes()

    plan = walg("delete", "retain", "1")[1]
    assert backups[0] in plan
    assert f"{backups[1]}/" not in plan
    assert len(json.loads(program("backup-list", "--json"))) == 2, "a dry run"

    walg("backup-mark", backups[0])
    assert [each["permanent"] for each in program.json("list")["backups"]] == [True, False]
    program("verify", "--backup", backups[0], "--wal", "none")

    restored = recovered(walg, make_server, server, "LATEST", target=make_server.new_directory("by-walg"))
    assert restored.execute("SELECT count(*), sum(n) FROM t") == [(rows, rows * (rows + 1) // 2)]


@pytest.mark.not_for_walg("what is stored is no WAL")
@pytest.mark.parametrize("encryption", ["none", "libsodium", "openpgp"])
@pytest.mark.parametrize("method", ["lz4", "zstd", "lzma", "none"])
def test_pgbackup_reads_what_wal_g_stores(method: str, encryption: str, own_keyring: Keyring, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "repository")
    codec = Codec(Compression("zstd", 1), read_key(KEY, "none") if encryption == "libsodium" else None)
    walg = WalG({"PATH": os.environ["PATH"], "HOME": str(tmp_path), "WALG_COMPRESSION_METHOD": method})
    walg.env["WALG_FILE_PREFIX"] = str(tmp_path / "repository")
    if encryption == "libsodium":
        walg.env["WALG_LIBSODIUM_KEY"] = KEY
    elif encryption == "openpgp":
        (tmp_path / "key").write_bytes(own_keyring.gpg("--armor", "--export-secret-keys", RSA))
        walg.env["WALG_PGP_KEY_PATH"] = str(tmp_path / "key")
    (tmp_path / "repository").mkdir()
    (tmp_path / "pg_wal" / "archive_status").mkdir(parents=True)
    for number, content in enumerate((os.urandom(3_000_000), b"\r\n" * 500_000, b"1\t0/2000000\tno reason\n")):
        path = tmp_path / "pg_wal" / f"{number + 1:024X}"
        path.write_bytes(content)
        walg("wal-push", path)
        [info] = store.list(keys.WAL + path.name)
        with store.open_read(info.key) as stored, codec.open(info.key, stored) as stream:
            assert stream.read() == content


def test_a_prefix_goes_from_wal_g_to_pgbackup_and_back(
    make_server: ServerFactory, make_program: MakeProgram, tmp_path: Path
) -> None:
    """The migration chapter of the README: their variables, the other word, and the first word again."""
    made = make_server(settings={"archive_mode": "on", "archive_command": "exit 1"}, start=False)
    server = make_server.over(made.data_directory, made.major, reads_everything=True)
    place = make_server.new_directory("repository")
    program = make_program(server, PGBACKUP_REPOSITORY=f"file://{place}")
    walg = WalG.beside(program, tmp_path)
    walg.env["WALG_COMPRESSION_METHOD"] = "lz4"
    theirs = program.with_env(**{name: value for name, value in walg.env.items() if name.startswith("WALG_")})
    theirs = theirs.with_env(PGBACKUP_REPOSITORY="", PGUSER="postgres")

    def archive_with(command: str) -> None:
        server.execute(f"ALTER SYSTEM SET archive_command = {command}")
        server.execute("SELECT pg_reload_conf()")

    archive_with(walg.command("wal-push", "%p"))
    walg("backup-push", server.data_directory)
    server.execute("CREATE TABLE t AS SELECT g AS n FROM generate_series(1, 1000) g")
    archive(server)
    first = theirs.json("list")["backups"]
    assert [(each["engine"], each["restorable"]) for each in first] == [("wal-g", True)]
    assert [each["name"] for each in first] == [each["backup_name"] for each in walg.json("backup-list", "--json")]

    archive_with("'" + words(theirs, "wal-push", "%p").replace("'", "''") + "'")
    server.execute("INSERT INTO t SELECT g FROM generate_series(1001, 2000) g")
    archive(server)
    theirs("backup-push", server.data_directory)
    server.execute("INSERT INTO t SELECT g FROM generate_series(2001, 3000) g")
    archive(server)
    target = make_server.new_directory("from-walg")
    theirs("restore", "--target", target, "--backup", first[0]["name"])
    restored = make_server.over(target, server.major, settings={"fsync": "off", "archive_mode": "off"})
    restored.wait_promoted()
    assert restored.execute("SELECT count(*) FROM t") == [(3000,)]

    archive_with(walg.command("wal-push", "%p"))
    walg("backup-push", server.data_directory)
    server.execute("INSERT INTO t SELECT g FROM generate_series(3001, 4000) g")
    archive(server)
    assert len(walg.json("backup-list", "--detail", "--json")) == 3
    assert [each["restorable"] for each in theirs.json("list")["backups"]] == [True, True, True]
    middle = theirs.json("list")["backups"][1]["name"]
    back = recovered(walg, make_server, server, middle, target=make_server.new_directory("back"))
    assert back.execute("SELECT count(*) FROM t") == [(4000,)]
