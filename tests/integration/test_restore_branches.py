"""Branches: after promotions and point-in-time restores every one is restorable, and none leaks into another."""

from __future__ import annotations

import pytest

from pgbackup.core.recovery_target import Target
from pgbackup.core.timeline import history_name, parse_history
from pgbackup.engines.base import SilentProgress
from pgbackup.engines.verify.verify import verify_backup
from pgbackup.errors import CorruptObject, RestoreError
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from tests.restoring import SETTINGS, Repository, insert, rows, timeline
from tests.streaming import flush_lsn, streaming


class Forked:
    """Timeline 1 with rows 1, 2, 3 (3 after the fork); timeline 2 left after row 2 and has row 20.

    All of it happened in one WAL segment, so both timelines have a tail of the segment of the fork.
    """

    def __init__(self, make_server) -> None:
        self.repository = Repository(make_server)
        self.old: ThrowawayServer = make_server(settings=SETTINGS)
        self.major = self.old.major
        self.old.execute("CREATE TABLE t (n int)")
        self.backup = self.repository.archiver.backup(self.old)
        _, self.before_fork, _ = insert(self.old, 1)
        _, self.fork, _ = insert(self.old, 2)
        insert(self.old, 3)
        self.repository.archiver.wal(self.old)
        self.new = self.branch_off()
        insert(self.new, 20)

    def branch_off(self) -> ThrowawayServer:
        """A server that recovered to the fork and was promoted."""
        return self.repository.recovered(Target("lsn", lsn=self.fork), major=self.major, timeline=1)

    def recovered(self, **options) -> tuple[list[int], int]:
        server = self.repository.recovered(major=self.major, **options)
        found = rows(server), timeline(server)
        server.close()
        return found


@pytest.fixture
def forked(make_server) -> Forked:
    return Forked(make_server)


def test_each_branch_is_restorable_from_tails(forked):
    forked.repository.archiver.wal(forked.new)
    assert forked.recovered() == ([1, 2, 20], 3)
    assert forked.recovered(timeline=1) == ([1, 2, 3], 3)
    plan = forked.repository.prepare().plan()
    assert plan.history.ancestors[-1].was_chosen, "the server wrote down that it was told to stop there"
    assert [file.source for file in plan.wal][-1] == "tail"
    assert plan.wal[-1].segment.timeline == 2


def test_each_branch_is_restorable_from_whole_segments(forked):
    for server in (forked.old, forked.new):
        server.execute("SELECT pg_switch_wal()")
        insert(server, 99)
        forked.repository.archiver.wal(server)
    assert forked.recovered() == ([1, 2, 20, 99], 3)
    assert forked.recovered(timeline=1) == ([1, 2, 3, 99], 3)


def test_the_old_branchs_tail_is_never_replayed_past_the_fork(forked):
    """Only the history of timeline 2 arrived: it ends at the fork, and row 3 of the other branch must not appear."""
    forked.repository.archiver.wal(forked.new, tail=False)
    plan = forked.repository.prepare(timeline=2).plan()
    assert plan.wal[-1].source == "cut"
    assert forked.recovered(timeline=2) == ([1, 2], 3)


def test_the_old_branchs_whole_segment_is_cut_at_the_fork(forked):
    forked.old.execute("SELECT pg_switch_wal()")
    insert(forked.old, 99)
    forked.repository.archiver.wal(forked.old)
    forked.repository.archiver.wal(forked.new, tail=False)
    assert forked.recovered(timeline=2) == ([1, 2], 3)


def test_a_new_branch_gets_a_number_that_is_free(forked):
    """The archive knows timeline 2; a restore of timeline 1 must not begin another 2."""
    forked.repository.archiver.wal(forked.new)
    restored = forked.repository.recovered(major=forked.major, timeline=1)
    assert timeline(restored) == 3


def test_two_branches_with_one_number_and_one_history_are_told_apart(forked):
    """A second server forked at the same place has a byte-identical history file, but other WAL. The archive has the
    first one's; where both wrote, the restore refuses to guess."""
    repository = forked.repository
    repository.archiver.wal(forked.new)
    twin = twin_of(forked)
    insert(twin, 21)
    insert(twin, 22)
    insert(twin, 23)
    histories = {(server.data_directory / "pg_wal" / history_name(2)).read_bytes() for server in (forked.new, twin)}
    assert len(histories) == 1
    assert forked.recovered() == ([1, 2, 20], 3)
    repository.archiver.wal(twin)
    pieces = [piece for info in repository.store.list(keys.WAL) if (piece := keys.parse_piece(info.key))]
    assert len([piece for piece in pieces if piece.segment.startswith("00000002")]) == 2
    with pytest.raises(CorruptObject, match="others than in"):
        repository.restore()


def twin_of(forked: Forked) -> ThrowawayServer:
    """Another server on timeline 2, made while the archive did not know it yet."""
    hidden = keys.wal(history_name(2), forked.repository.codec.extension)
    stored = forked.repository.store.get(hidden)
    forked.repository.store.delete([hidden])
    twin = forked.branch_off()
    forked.repository.store.put(hidden, stored)
    return twin


def test_a_backup_on_a_branch_is_not_used_for_another(forked):
    forked.repository.archiver.wal(forked.new)
    forked.old.execute("SELECT pg_switch_wal()")
    late = forked.repository.archiver.backup(forked.old)
    insert(forked.old, 4)
    forked.repository.archiver.wal(forked.old)
    assert forked.recovered() == ([1, 2, 20], 3)
    assert forked.recovered(backup=late) == ([1, 2, 3, 4], 3)
    with pytest.raises(RestoreError, match="not a child"):
        forked.repository.restore(backup=late, timeline=2)


def test_the_branch_last_written_is_the_default(forked):
    forked.repository.archiver.wal(forked.new)
    forked.repository.store.put(keys.LEASE, b'{"timeline": 1, "writer": "x"}')
    assert forked.recovered() == ([1, 2, 3], 3)


def test_a_long_line_of_descent(forked):
    forked.repository.archiver.wal(forked.new)
    server = forked.new
    for number in (30, 40, 50):
        server = forked.repository.recovered(major=forked.major)
        server.configure(wal_keep_size="1GB")
        insert(server, number)
        server.execute("SELECT pg_switch_wal()")
        insert(server, number + 1)
        forked.repository.archiver.wal(server)
    assert forked.recovered() == ([1, 2, 20, 30, 31, 40, 41, 50, 51], 6)
    assert forked.recovered(timeline=4) == ([1, 2, 20, 30, 31, 40, 41], 6)
    assert forked.recovered(timeline=1) == ([1, 2, 3], 6)


def test_a_restore_along_the_newest_branch_to_before_it_began(forked):
    """What a restore to a moment before the last failover is. Postgres names timeline 2 as the parent of 3, though 3
    forks off before 2 does: the server's WAL is shipped, and restored, all the same."""
    forked.repository.archiver.wal(forked.new)
    server = forked.repository.recovered(Target("lsn", lsn=forked.before_fork), major=forked.major)
    assert (rows(server), timeline(server)) == ([1], 3)
    text = (server.data_directory / "pg_wal" / history_name(3)).read_text()
    forks = [ancestor.fork for ancestor in parse_history(3, text).ancestors]
    assert forks[1] < forks[0]
    insert(server, 30)
    server.execute("SELECT pg_switch_wal()")
    insert(server, 31)
    with streaming(server, forked.repository.store, adopt=True) as wal:
        wal.wait_for(lambda position: position.timeline == 3 and position.confirmed >= flush_lsn(server))
    assert forked.recovered() == ([1, 30, 31], 4)
    assert forked.recovered(timeline=2) == ([1, 2, 20], 4)
    store, codec = forked.repository.store, forked.repository.codec
    catalog = read_catalog(store, codec)
    report = verify_backup(store, codec, catalog, catalog.backups[0], progress=SilentProgress())
    assert [row.timeline for row in report.wal] == [1, 2, 3]
    assert not [finding for finding in report.findings if finding.object.startswith(keys.WAL)]
