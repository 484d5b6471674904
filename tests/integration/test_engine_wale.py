"""Real WAL-E drives a real PostgreSQL 14 through the whole program: shipped, backed up, restored by both, expired."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.storage.open import open_store
from tests.fix_app import MakeProgram, Program
from tests.fix_gpg import RSA, Keyring
from tests.fix_postgres import ServerFactory
from tests.fix_store import set_aws_env
from tests.fix_tools import needs_lzo
from tests.tool_engine import (
    fill,
    repository_folder,
    rows,
    start_restored,
    stored_wal_names,
    wait_whole,
    with_tool,
)

pytestmark = [pytest.mark.timeout(600), pytest.mark.not_for_walg("WAL-E's own layout"), needs_lzo]
_OPENPGP = (0x84, 0x85, 0xC1)
"""How a message to a public key begins: a session key packet, in the old format or the new (RFC 4880, 4.2)."""


def shipped(server: ThrowawayServer, program: Program) -> None:
    """A base backup by WAL-E, and rows 0 to 2499, of which 1000 are in it."""
    fill(server, 0, 1000)
    program.run()
    backup = program.wait_backups(1, timeout=200)[0]
    fill(server, 1000, 2000)
    fill(server, 2000, 2500)
    wait_whole(program, server)
    assert backup["engine"] == "wal-e"


def test_backed_up_by_wal_e_and_restored_by_wal_e_and_by_pgbackup(
    make_server: ServerFactory, make_program: MakeProgram, wal_e: Path
) -> None:
    server = make_server(14)
    program = with_tool(make_program, server, "wal-e", wal_e)
    shipped(server, program)
    names = stored_wal_names(program)
    assert len(names) >= 3
    assert all(name.endswith(".lzo") for name in names), "everything is WAL-E's"

    # By pgbackup, which lets WAL-E fetch files and WAL.
    target = make_server.new_directory("by-pgbackup")
    program("restore", "--target", target)
    assert rows(start_restored(make_server, target, 14)) == list(range(2500))

    # The same, WAL fetched during recovery.
    target = make_server.new_directory("on-demand")
    program("restore", "--target", target, "--wal", "on-demand")
    assert rows(start_restored(make_server, target, 14, reads_everything=True)) == list(range(2500))

    # By pgbackup's own reader, without the tool.
    native = program.with_env(PGBACKUP_ENGINE="native")
    del native.env["PGBACKUP_TOOL"]
    target = make_server.new_directory("by-own-reader")
    native("restore", "--target", target)
    assert rows(start_restored(make_server, target, 14)) == list(range(2500))

    # By WAL-E alone.
    env = {"PATH": program.env["PATH"], "WALE_FILE_PREFIX": f"file://localhost{repository_folder(program)}"}
    target = make_server.new_directory("by-wal-e")
    subprocess.run([wal_e, "backup-fetch", target, "LATEST"], env=env, check=True, capture_output=True)
    subprocess.run(["chown", "-R", f"--reference={target}", *target.iterdir()], check=True)
    words = ["env", *(f"{name}={value}" for name, value in env.items()), str(wal_e), "wal-fetch"]
    command = f"{shlex.join(words)} %f %p".replace("'", "''")
    (target / "postgresql.conf").write_text(f"restore_command = '{command}'\nrecovery_target_timeline = 'latest'\n")
    (target / "recovery.signal").touch()
    assert rows(start_restored(make_server, target, 14, reads_everything=True)) == list(range(2500))


def test_in_s3_and_encrypted_with_gnupg(
    make_server: ServerFactory,
    make_program: MakeProgram,
    wal_e: Path,
    keyring: Keyring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """WAL-E encrypts what its engine backs up and ships, and asks the store to do so too; both read it back."""
    server = make_server(14)
    secret = {"WALE_GPG_KEY_ID": RSA, "GNUPGHOME": str(keyring.folder)}
    program = with_tool(make_program, server, "wal-e", wal_e, s3=True, **secret)
    shipped(server, program)
    set_aws_env({name: value for name, value in program.env.items() if name.startswith("AWS_")}, monkeypatch)
    store = open_store(program.env["PGBACKUP_REPOSITORY"])
    stored = [info.key for info in store.list() if info.key.endswith(".lzo")]
    assert len([key for key in stored if key.startswith(keys.WAL)]) >= 3
    assert len([key for key in stored if key.startswith(keys.BASEBACKUPS)]) >= 1
    for key in stored:
        with store.open_read(key) as stream:
            assert stream.read(1)[0] in _OPENPGP, f"{key} is not encrypted"

    # WAL-E fetches and decrypts files and WAL, for pgbackup.
    target = make_server.new_directory("by-wal-e")
    program("restore", "--target", target)
    assert rows(start_restored(make_server, target, 14)) == list(range(2500))

    # By pgbackup's own reader, without the tool.
    native = program.with_env(PGBACKUP_ENGINE="native")
    for name in ("PGBACKUP_TOOL", "WALE_GPG_KEY_ID"):
        del native.env[name]
    target = make_server.new_directory("by-own-reader")
    native("restore", "--target", target)
    assert rows(start_restored(make_server, target, 14)) == list(range(2500))
