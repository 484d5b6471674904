"""A base backup that vanished is told by whoever looks next, and what expiry removed never is: over restarts too."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.health_facts import LastRun
from pgbackup.core.lsn import MIB, Lsn
from pgbackup.core.retention import RetentionPolicy
from pgbackup.core.wal_clock import WalClock
from pgbackup.engines.expire.expire import ExpiryReport, ExpiryRequest, run_expiry
from pgbackup.engines.presence.lease import Lease
from pgbackup.errors import ConnectionLost, StoreDenied
from pgbackup.postgres.session import Session
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.catalog_watch import CatalogWatch
from pgbackup.repository.expiry_record import ExpiryRecord, read_record
from pgbackup.supervisor.health_look import HealthLook, LookPorts
from pgbackup.supervisor.seen_backups import SeenBackups
from pgbackup.supervisor.vanished_backups import VanishedBackups
from tests.made_backup import NOON, MadeRepository


class Repository:
    """Backups with their WAL, what looks at them, and what takes them away."""

    def __init__(self) -> None:
        self.made = MadeRepository()
        self.made.claim()
        self.store = self.made.store
        self.ours = Lease(self.store, writer="ours", host="here")
        assert self.ours.acquire(self.made.system_identifier, 1)
        self.taken = 0
        self.start()

    def start(self, *, lease: Lease | None = None, others_expire: bool = False) -> None:
        """Another process, from now on."""
        seen = SeenBackups(self.store, lease or self.ours)
        self.looking = VanishedBackups(self.store, seen, others_expire=others_expire)

    def names(self) -> list[str]:
        return [backup.name for backup in read_catalog(self.store, self.made.codec).backups]

    def look(self, verification: LastRun | None = None, *, minutes: float = 0) -> list[str]:
        self.looking.before_look()
        return sorted(self.looking.look(self.names(), verification, NOON + timedelta(minutes=minutes)))

    def asked(self, *, others_expire: bool = False) -> list[str]:
        """What a command says that may write nothing."""
        seen = SeenBackups(self.store, None)
        looking = VanishedBackups(self.store, seen, others_expire=others_expire)
        looking.before_look()
        return sorted(looking.look(self.names(), None, NOON))

    def take(self) -> str:
        self.taken += 1
        for number in (2 * self.taken, 2 * self.taken + 1):
            self.made.put(self.made.segment_key(1, number), b"WAL")
        begin = 2 * self.taken * MIB
        return self.made.backup(Lsn(begin + 40), Lsn(begin + 400), minutes=self.taken, parts=1)

    def lose(self, name: str) -> None:
        """Somebody removes it whole."""
        self.store.delete([info.key for info in self.store.list(keys.BASEBACKUPS) if name in info.key])

    def expire(self, keep: int, *, accept_missing: bool = False) -> ExpiryReport:
        policy = RetentionPolicy(keep, timedelta(0))
        return run_expiry(
            ExpiryRequest(
                self.store, self.made.codec, policy, UTC, threading.Event(), lambda: True, accept_missing=accept_missing
            )
        )


@pytest.fixture
def repository() -> Repository:
    """Three backups that a process has seen."""
    repository = Repository()
    for _ in range(3):
        repository.take()
    assert repository.look() == []
    return repository


def test_what_vanished_while_no_process_ran_is_told_by_the_next(repository: Repository) -> None:
    older, _, newest = repository.names()
    repository.lose(older)
    repository.lose(newest)
    assert repository.asked() == [older, newest]
    repository.start()
    assert repository.look() == repository.look() == [older, newest]
    began = NOON + timedelta(minutes=2)
    whole = LastRun(began + timedelta(minutes=1), ok=True, summary="whole", began=began)
    assert repository.look(whole, minutes=3) == []
    repository.start()
    assert repository.look() == []


def test_it_is_told_once(repository: Repository) -> None:
    """A process that ends before people were told leaves it to the next, one that lives long enough does not."""
    older = repository.names()[0]
    repository.lose(older)
    for _ in range(3):
        repository.start()
        assert repository.look() == [older], "it may not have been told yet"
    assert repository.look(minutes=10) == [older], "this process tells it on"
    assert repository.asked() == []
    repository.start()
    assert repository.look() == []


def test_one_that_is_back_has_not_vanished(repository: Repository) -> None:
    older = repository.names()[0]
    kept = {info.key: repository.store.get(info.key) for info in repository.store.list(keys.BASEBACKUPS)}
    repository.lose(older)
    repository.start()
    assert repository.look() == [older]
    for key, data in kept.items():
        repository.store.put(key, data)
    assert repository.look() == []


def test_what_several_expiries_removed_meanwhile_has_not_vanished(repository: Repository) -> None:
    """The record names what the last one removed, for people; that is not enough after two."""
    for _ in range(3):
        repository.take()
        assert len(repository.expire(2).backups) > 0
    assert repository.asked() == []
    repository.start()
    assert repository.look() == []


def test_what_was_accepted_as_missing_has_not_vanished(repository: Repository) -> None:
    repository.expire(3)
    older = repository.names()[0]
    repository.lose(older)
    repository.start()
    assert repository.look() == [older]
    assert repository.expire(3).plan.refusal
    assert repository.look() == [older]
    assert not repository.expire(3, accept_missing=True).plan.refusal
    assert repository.look() == []
    repository.start()
    assert repository.look() == []
    repository.expire(2)
    assert repository.asked() == []


def test_a_record_of_an_older_version_names_what_it_does(repository: Repository) -> None:
    first, second, _ = repository.names()
    repository.lose(first)
    repository.lose(second)
    record = ExpiryRecord(datetime.now(UTC), None, frozenset(), frozenset([second]), {"backups": [first]})
    repository.store.put(keys.EXPIRY, record.encode().replace(b', "gone": []', b""))
    assert repository.asked() == []
    repository.take()
    repository.expire(1)
    record = read_record(repository.store)
    assert record is not None
    assert {first, second} < record.accounted


def test_one_that_is_sealed_while_others_are_listed_has_not_vanished(repository: Repository) -> None:
    """`pgbackup status` lists for seconds in a large repository; `run` notes a new backup within less."""

    def no_server() -> Session:
        raise ConnectionLost("there is no server")

    def meanwhile(operation: str, key: str) -> None:
        if (operation, key) == ("list", keys.WAL):
            repository.store.on_call = None
            repository.take()
            assert repository.look() == []

    watch = CatalogWatch(repository.store, repository.made.codec)
    looking = HealthLook(LookPorts(repository.store, watch, no_server), WalClock())
    repository.store.on_call = meanwhile
    view = looking.look().repository
    assert repository.taken == 4
    assert view is not None
    assert view.vanished == ()


def test_who_does_not_hold_the_lease_writes_nothing(repository: Repository) -> None:
    """It may have been pointed at another cluster's prefix."""
    before = repository.store.get(keys.SEEN_BACKUPS)
    older = repository.names()[0]
    repository.lose(older)
    repository.take()
    repository.start(lease=Lease(repository.store, writer="other", host="here"))
    assert repository.look() == [older]
    assert repository.asked() == [older]
    assert repository.store.get(keys.SEEN_BACKUPS) == before
    repository.store.delete([keys.LEASE])
    assert repository.look() == [older]
    assert repository.store.get(keys.SEEN_BACKUPS) == before


def test_without_rights_to_write_all_else_goes_on(repository: Repository) -> None:
    def deny(operation: str, key: str) -> None:
        if operation == "put":
            raise StoreDenied("not allowed")

    repository.store.on_call = deny
    newest = repository.names()[-1]
    repository.lose(newest)
    assert repository.look() == repository.look() == [newest]


def test_nothing_is_known_of_an_empty_prefix_nor_from_a_damaged_document(repository: Repository) -> None:
    repository.store.put(keys.SEEN_BACKUPS, b'{"backups": [7]}')
    repository.lose(repository.names()[0])
    repository.start()
    assert repository.look() == []
    assert Repository().look() == []


def test_nothing_is_written_while_nothing_changes(repository: Repository) -> None:
    repository.look()
    operations: list[str] = []
    repository.store.on_call = lambda operation, _: operations.append(operation)
    repository.looking.look(["base_1"], None, NOON)
    assert "put" in operations
    operations.clear()
    repository.looking.look(["base_1"], None, NOON)
    assert "put" not in operations


def test_where_others_expire_the_newest_must_stay_or_all_give_way_to_new_ones(repository: Repository) -> None:
    first, second, newest = repository.names()
    repository.lose(first)
    assert repository.asked() == [first]
    assert repository.asked(others_expire=True) == []
    repository.lose(newest)
    assert repository.asked(others_expire=True) == [first, newest], "the oldest go first"
    repository.lose(second)
    assert repository.asked(others_expire=True) == [first, second, newest], "nothing is left"
    repository.take()
    assert repository.asked(others_expire=True) == []
    assert repository.asked() == [first, second, newest]


def test_a_new_one_does_not_hide_that_the_newest_went_before_it_was_told(repository: Repository) -> None:
    newest = repository.names()[-1]
    repository.lose(newest)
    repository.start(others_expire=True)
    assert newest in repository.look()
    repository.take()
    assert newest in repository.look()
    repository.start(others_expire=True)
    assert newest in repository.look()


@given(st.lists(st.sampled_from(["take", "look", "start", "lose", "expire", "accept"]), max_size=25), st.randoms())
def test_whatever_happens_in_between(actions: list[str], random) -> None:
    """All that a look has listed and somebody removed is told, until it is accepted; nothing that expiry removed is."""
    repository = Repository()
    seen: set[str] = set()
    lost: set[str] = set()
    known_to_expiry: set[str] = set()
    for action in actions:
        there = repository.names()
        if action == "take":
            repository.take()
        elif action == "look":
            assert set(repository.look()) == lost & seen
            seen |= set(there)
        elif action == "start":
            repository.start()
        elif action == "lose" and there:
            repository.lose(name := random.choice(there))
            lost.add(name)
        elif action in ("expire", "accept") and there:
            report = repository.expire(random.randint(1, 3), accept_missing=action == "accept")
            if not report.plan.refusal:
                lost -= known_to_expiry if action == "accept" else set()
                known_to_expiry = set(repository.names())
    assert set(repository.look()) == lost & seen
