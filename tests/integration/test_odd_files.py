"""Whatever lies in a data directory: what is sealed verifies, restores, and is what was there."""

from __future__ import annotations

import os

import pytest

from pgbackup.engines.base import SilentProgress
from pgbackup.engines.check.directory import check_directory
from pgbackup.engines.check.report import CheckReport
from pgbackup.engines.verify.verify import choose_backup, verify_backup
from pgbackup.errors import BackupError
from pgbackup.postgres.session import Session
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.storage.memory import MemoryStore
from tests.base_backups import leftovers, take
from tests.fix_postgres import ServerFactory
from tests.restoring import Repository

PART_BYTES = 1 << 20
ODD = {
    b"backup_manifest.tmp": b"pg_basebackup was interrupted here",
    b"backup_manifest.old": b"",
    b"pgbackup_wal_notes": b"kept",
    b"not utf-8 \xff\xfe": b"bytes",
    b"a folder \xe9/inside \xe9": b"more bytes",
    b'quotes " and \\ and \n newline': b"x",
    b"n" * 98: b"the longest name that the server sends",
    b"one part exactly": os.urandom(PART_BYTES - 512),
    b"a part and a header": os.urandom(PART_BYTES),
    b"one byte less than a block": b"y" * 511,
    b"one block": b"z" * 512,
    b"sub/.pgbackup-restore": b"not ours",
    b"sub/recovery.signal": b"not at its place",
    b"sub/backup_manifest.tmp": b"somebody's copy",
}


def test_odd_files_are_sealed_verified_and_restored(make_server: ServerFactory) -> None:
    server = make_server()
    for raw, content in ODD.items():
        path = server.data_directory / os.fsdecode(raw)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    script = server.data_directory / "archive.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o750)
    make_server.account.own(server.data_directory)
    repository = Repository(make_server)
    name = take(server, repository.store, part_bytes=PART_BYTES).name
    catalog = read_catalog(repository.store, repository.codec)
    backup = choose_backup(catalog, name)
    report = verify_backup(repository.store, repository.codec, catalog, backup, progress=SilentProgress(), wal="needed")
    assert report.findings == ()
    restored = repository.restore().directory
    for raw, content in ODD.items():
        if not raw.startswith(b"backup_manifest"):  # a stray manifest is not backed up
            assert (restored / os.fsdecode(raw)).read_bytes() == content, raw
    assert (restored / "archive.sh").stat().st_mode & 0o777 == 0o750


def test_what_the_server_leaves_out_is_no_backup(make_server: ServerFactory, caplog: pytest.LogCaptureFixture) -> None:
    """It follows no links: a database that somebody moved to another disk by one would be missing after a restore."""
    server = make_server()
    oid = server.execute("SELECT oid FROM pg_database WHERE datname = 'template1'")[0][0]
    server.stop("fast")
    link(server, make_server, "pg_ident.conf")
    server.start()
    take(server, MemoryStore())
    assert "pg_ident.conf" in caplog.text
    server.stop("fast")
    link(server, make_server, f"base/{oid}")
    server.start()
    server.execute("SELECT pg_switch_wal()")
    store = MemoryStore()
    with pytest.raises(BackupError, match=f"leaves base/{oid} out"):
        take(server, store)
    assert leftovers(store) == []
    report = CheckReport()
    with Session.connect(server.conninfo(), application_name="check") as session:
        check_directory(report, session.facts())
    (line,) = report.lines
    assert (line.status, line.name) == ("failure", "data directory")
    assert line.text.startswith(f"base/{oid}: ")


def link(server: ThrowawayServer, make_server: ServerFactory, name: str) -> None:
    """Move a part of the data directory elsewhere, and leave a link to it."""
    path, place = server.data_directory / name, make_server.workspace / f"elsewhere {name.replace('/', '-')}"
    path.rename(place)
    path.symlink_to(place)
