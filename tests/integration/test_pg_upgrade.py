"""A real pg_upgrade: a prefix as WAL-G leaves it, with both clusters in it, and one prefix for each by placeholders."""

from __future__ import annotations

import threading
from datetime import UTC, timedelta
from pathlib import Path

import pytest
import zstandard

from pgbackup.core.clusters import clusters_of
from pgbackup.core.recovery_target import Target
from pgbackup.core.retention import RetentionPolicy
from pgbackup.engines.expire.expire import ExpiryRequest, run_expiry
from pgbackup.postgres.throwaway import ClusterOptions, ThrowawayServer, create_cluster
from pgbackup.postgres.unprivileged import readable_installation
from pgbackup.repository.catalog_reader import read_catalog
from tests.fix_app import MakeProgram, Program
from tests.fix_postgres import ServerFactory
from tests.foreign_archives import WalG, put_wal
from tests.restoring import SETTINGS, Repository, insert, rows

OLD, NEW = 15, 18
QUICK = {"fsync": False, "shared_buffers": "16MB", "wal_keep_size": "1GB", "max_connections": 40}
compress = zstandard.ZstdCompressor().compress


def upgrade(make_server: ServerFactory, old: ThrowawayServer) -> ThrowawayServer:
    """Stop a server, upgrade it with pg_upgrade, and start what came out."""
    old.stop("fast")
    account = make_server.account
    bindirs = {m: readable_installation(make_server.installation(m), account).bindir for m in (old.major, NEW)}
    target, folder = make_server.workspace / "upgraded", make_server.new_directory("u")
    create_cluster(make_server.installation(NEW), target, ClusterOptions(settings=QUICK), account=account)
    options: dict[str, str | Path] = {
        "old-bindir": bindirs[old.major], "new-bindir": bindirs[NEW], "old-datadir": old.data_directory,
        "new-datadir": target, "username": "postgres", "socketdir": folder,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    account.run(["sh", "-c", 'cd "$0" && exec "$@"', folder, bindirs[NEW] / "pg_upgrade", "--no-sync", *words])
    return make_server.over(target, NEW)


def native_backup(program: Program) -> str:
    """Take one, and list what is in the prefix then: one."""
    program("backup")
    (backup,) = program.backups()
    assert backup["restorable"]
    return str(backup["name"])


@pytest.mark.timeout(240)
def test_an_upgraded_server(make_server: ServerFactory, make_program: MakeProgram) -> None:
    make_server.installation(NEW)
    old = make_server(OLD, settings=SETTINGS)
    old.execute("CREATE TABLE t (n int)")
    insert(old, 1)
    program = make_program(old)
    root = program.env["PGBACKUP_REPOSITORY"]
    program.env["PGBACKUP_REPOSITORY"] = f"{root}/{{pg_major}}/{{system_identifier}}"
    native_backup(program)
    repository = Repository(make_server)
    first = WalG(repository.store, old, ".zst", compress).full()
    moment, _, _ = insert(old, 2)
    insert(old, 3)
    put_wal(repository.store, old, ".zst", compress)

    new = upgrade(make_server, old)
    insert(new, 4)
    second = WalG(repository.store, new, ".zst", compress).full()
    insert(new, 5)
    put_wal(repository.store, new, ".zst", compress)

    # One prefix for both, as WAL-G's users have it.
    catalog = read_catalog(repository.store, repository.codec)
    clusters = clusters_of(catalog)
    assert (len(clusters.identifiers), clusters.mixed) == (2, ""), "pg_upgrade goes on behind the old cluster's WAL"
    assert [b.name for b in catalog.backups if not catalog.why_not_restorable(b)] == [first, second]
    assert rows(repository.recovered(Target("time", time=moment), major=OLD)) == [1, 2]
    policy = RetentionPolicy(backups=1, window=timedelta(0))
    request = ExpiryRequest(repository.store, repository.codec, policy, UTC, threading.Event(), lambda: True)
    report = run_expiry(request)
    assert (report.plan.refusal, report.backups) == ("", (first,))
    after = read_catalog(repository.store, repository.codec)
    assert min(after.segments[1]) == after.backups[0].start_lsn // after.segment_bytes
    assert rows(repository.recovered(major=NEW)) == [1, 2, 3, 4, 5]

    # A prefix for each: nothing has to be changed after the upgrade.
    upgraded = program.with_env(PGPORT=str(new.port))
    native_backup(upgraded)
    prefixes = sorted(Path(root.removeprefix("file://")).glob("*/*/"))
    assert [path.parent.name for path in prefixes] == [str(OLD), str(NEW)]
    by_name = upgraded.with_env(PGBACKUP_REPOSITORY=f"file://{prefixes[0]}")
    assert by_name.backups()[0]["restorable"], "the old one is there, and restorable, until somebody removes it"

    # Without placeholders the old cluster's prefix is refused, and a better one is named.
    said = upgraded.with_env(PGBACKUP_REPOSITORY=f"file://{prefixes[0]}")("backup", exit_code=4)
    assert "belongs to another cluster" in said
    assert f"{prefixes[0]}/{clusters.identifiers[1]}" in said
