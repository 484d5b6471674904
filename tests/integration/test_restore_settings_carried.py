"""The restore_command for WAL on demand works from the server's directory, however the restore got its settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgbackup.postgres.recovery_settings import read_settings
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.file import FileStore
from tests.restoring import SETTINGS, Repository, filled

KEY = "00112233445566778899aabbccddeeff" * 2


@pytest.mark.parametrize("how", ["config", "usual file", "relative key file", "flag"])
def test_the_command_works_from_anywhere(make_server, tmp_path, how):
    source = make_server(settings=SETTINGS)
    source.execute("CREATE TABLE t (n int)")
    folder = make_server.workspace / "repository"
    codec = Codec(Compression("zstd", 1), bytes.fromhex(KEY))
    repository = filled(Repository(make_server, codec, store=FileStore(folder.as_uri())), source)
    (tmp_path / "key").write_text(KEY)
    lines = {"repository": folder.as_uri(), "encryption_key_file": "key", "encryption_key_transform": "hex"}
    lines["encryption_key_file"] = str(tmp_path / "key")
    (tmp_path / "pgbackup.toml").write_text("".join(f'{name} = "{value}"\n' for name, value in lines.items()))
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    flags: list[str] = []
    match how:
        case "config":
            (tmp_path / "pgbackup.toml").rename(tmp_path / "other.toml")
            flags = ["--config", "other.toml"]
        case "relative key file" | "flag":
            (tmp_path / "pgbackup.toml").unlink()
            environ |= {"PGBACKUP_REPOSITORY": folder.as_uri(), "PGBACKUP_ENCRYPTION_KEY_FILE": "key"}
            if how == "flag":
                flags = ["--encryption-key-transform", "hex"]
            else:
                environ["PGBACKUP_ENCRYPTION_KEY_TRANSFORM"] = "hex"
    target = make_server.new_directory("target")
    words = [sys.executable, "-m", "pgbackup", *flags, "restore", "--target", str(target), "--wal", "on-demand"]
    done = subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    command = read_settings(target / "postgresql.auto.conf")["restore_command"]
    names = [info.key.removeprefix(keys.WAL)[:24] for info in repository.store.list(keys.WAL) if ".zst" in info.key]
    command = command.replace("%f", max(n for n in names if "." not in n)).replace("%p", "pg_wal/RECOVERYXLOG")
    bare = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["sh", "-c", command.replace("%%", "%")], env=bare, cwd=target, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (target / "pg_wal" / "RECOVERYXLOG").stat().st_size == 16 << 20
