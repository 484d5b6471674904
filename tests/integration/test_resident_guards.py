"""What a resident process may do to a repository: nothing while it is not certain that it is its own server's."""

from __future__ import annotations

from typing import Any

import pytest

from pgbackup.config.settings import load_settings
from pgbackup.engines.presence.lease import Lease
from pgbackup.engines.wal.progress import WalPosition
from pgbackup.errors import BackupError, WrongCluster
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.storage.memory import MemoryStore
from pgbackup.supervisor import from_settings
from pgbackup.supervisor.alert_desk import AlertDesk
from pgbackup.supervisor.latest_status import LatestStatus
from pgbackup.supervisor.resident import Resident, Works
from tests.fix_app import server_env
from tests.fix_postgres import ServerFactory
from tests.streaming import ZSTD


def resident(server: ThrowawayServer, store: MemoryStore) -> Resident:
    """One that is put together and does not run; whatever moves bytes is missing."""
    settings = load_settings(environ={**server_env(server), "PGBACKUP_REPOSITORY": "file:///nowhere"})
    unused: Any = None
    works = Works(store, ZSTD, server.conninfo(user="pgbackup"), unused, unused)
    return Resident(settings, works, LatestStatus(), AlertDesk(from_settings.desk(settings)))


def test_a_server_at_a_mistyped_prefix_expires_nothing_there(make_server: ServerFactory) -> None:
    """The owner's lease grows stale while its server is idle. Whoever took it then expired the owner's backups, by a
    policy that was made for another server."""
    store = MemoryStore()
    ours, other = resident(make_server(), store), resident(make_server(fresh=True), store)
    for each in (ours, other):
        each.progress.publish(WalPosition(timeline=1, began=1 << 24, streaming=True))
    assert ours._may_expire()
    lease = store.get(keys.LEASE)
    store.delete([keys.LEASE])
    for may_run in (other._may_run, other._may_expire):
        with pytest.raises(WrongCluster, match="belongs to another cluster"):
            may_run()
    assert store.head(keys.LEASE) is None
    store.put(keys.LEASE, lease)
    assert ours._may_run()


def test_the_lease_names_the_timeline_that_is_streamed(make_server: ServerFactory) -> None:
    """A restore takes the branch that the lease names. The server was just promoted: its last checkpoint is older."""
    primary, store = make_server(settings={"checkpoint_timeout": "1h"}), MemoryStore()
    standby = make_server.standby_of(primary)
    # A checkpoint takes its time where there is much to write.
    primary.execute("CREATE TABLE t AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
    standby.execute("SELECT pg_promote()")
    assert standby.execute("SELECT timeline_id FROM pg_control_checkpoint()") == [(1,)]
    ours = resident(standby, store)
    ours.progress.publish(WalPosition(timeline=2, began=1 << 24, streaming=True))
    assert ours._may_run()
    stored = Lease(store, writer="", host="").read()
    assert stored is not None
    assert stored[0].timeline == 2


def test_a_clone_that_is_not_adopted_expires_nothing(make_server: ServerFactory) -> None:
    """It has the identifier of the server that it was restored from; that it may not go on here the stream says."""
    store = MemoryStore()
    clone = resident(make_server(), store)
    with pytest.raises(BackupError, match="has not begun"):
        clone._may_expire()
    clone.progress.note_problem(BackupError("this server was restored from another one"), permanent=True)
    with pytest.raises(BackupError, match="WAL is not being shipped"):
        clone._may_expire()
    assert Lease(store, writer="", host="").read() is None
