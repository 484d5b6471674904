"""Gathers the facts that health is judged from: one look at the server, one at the bucket, in that order.

Each part fails for itself: a store that does not answer does not hide what the server shows. Nothing is taken over from
an earlier look but what the CatalogWatch compares with the bucket.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pgbackup.core.catalog import Catalog
from pgbackup.core.durability import durability
from pgbackup.core.health import durable_end
from pgbackup.core.health_backups import done_at, is_late
from pgbackup.core.health_facts import (
    BackupUnderWay,
    HealthFacts,
    HealthLimits,
    LastRun,
    Noticed,
    RepositoryView,
    ServerView,
)
from pgbackup.core.removed_wal import RemovedWal
from pgbackup.core.wal_clock import WalClock
from pgbackup.engines.backup.intent import read_intents, store_clock
from pgbackup.engines.presence.lease import Lease
from pgbackup.engines.presence.other_writer import OtherWriter, OtherWriterWatch
from pgbackup.engines.verify.wal_paths import wal_read_with
from pgbackup.errors import CorruptObject, ObjectMissing, PgbackupError
from pgbackup.postgres.server_look import ServerLook, look
from pgbackup.postgres.session import Session
from pgbackup.repository.catalog_watch import CatalogWatch
from pgbackup.repository.expiry_record import read_removed_wal
from pgbackup.repository.verification_note import must_read_verification
from pgbackup.storage.base import ObjectStore
from pgbackup.supervisor.seen_backups import SeenBackups
from pgbackup.supervisor.vanished_backups import VanishedBackups

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LookPorts:
    """Where to look. ``lease`` is None for a command that is not the resident: it writes nothing, and calls nobody's
    writer another's; ``limits`` say when a base backup is late, and those under way are looked at; ``others_expire``:
    something that keeps no record of ours removes old backups."""

    store: ObjectStore
    watch: CatalogWatch
    open_session: Callable[[], Session]
    lease: Lease | None = None
    limits: HealthLimits | None = None
    others_expire: bool = False


class HealthLook:
    """Looks again and again. For one thread, but for ``read_again``, and for ``clock``, which whoever samples positions
    shares."""

    def __init__(self, ports: LookPorts, clock: WalClock) -> None:
        self._ports = ports
        self._clock = clock
        self._store_clock: tuple[datetime, datetime] | None = None
        self._unreadable = ""
        self._others = OtherWriterWatch(ports.lease) if ports.lease is not None else None
        self._other: OtherWriter | None = None
        self._had_backups = False
        self._removed_wal = RemovedWal()
        self._vanished = VanishedBackups(
            ports.store, SeenBackups(ports.store, ports.lease), others_expire=ports.others_expire
        )
        self._replacements = 0
        self._replaced_at: Noticed | None = None
        self._verification: LastRun | None = None
        self._verification_unreadable = ""
        self._read_again = threading.Event()
        self._position: object = None
        self._caught_up = False

    def look(self) -> HealthFacts:
        """The facts as of now; parts that could not be looked at are None, with the reason."""
        server, server_problem = self._look_at_server()
        repository, repository_problem = self._look_at_repository(server)
        if repository is None:
            return HealthFacts(None, server, repository_problem, server_problem)
        if server is not None:
            server = self._look_again(server, repository.catalog)
        found = durability(repository.catalog, server, self._clock, datetime.now(UTC))
        self._caught_up = found.wal_age is not None and not found.wal_age
        return HealthFacts(
            repository,
            server,
            "",
            server_problem,
            wal_age=found.wal_age,
            behind_for=found.behind_for,
            durable_moment=found.moment,
        )

    def read_again(self) -> None:
        """Read at the next look what rarely changes: it just did. From any thread."""
        self._read_again.set()

    # -- the server -----------------------------------------------------------------------------------------------

    def _look_at_server(self) -> tuple[ServerView | None, str]:
        begun = datetime.now(UTC)
        try:
            with self._ports.open_session() as session:
                seen = look(session)
        except PgbackupError as exc:
            return None, str(exc)
        looked = begun + (datetime.now(UTC) - begun) / 2
        self._clock.note(looked, seen.position)
        return _server_view(seen, looked), ""

    def _look_again(self, server: ServerView, catalog: Catalog) -> ServerView:
        """Where the server's WAL ends after the bucket was listed, should the bucket be ahead of the first look."""
        end = durable_end(catalog, server.timeline)
        if end is None or end <= server.position:
            return server
        try:
            with self._ports.open_session() as session:
                seen = look(session)
        except PgbackupError as exc:
            _log.debug("the second look at the server failed: %s", exc)
            return server
        if (seen.system_identifier, seen.timeline) != (server.system_identifier, server.timeline):
            return server
        return replace(server, position_after=seen.position)

    # -- the bucket -----------------------------------------------------------------------------------------------

    def _look_at_repository(self, server: ServerView | None) -> tuple[RepositoryView | None, str]:
        position = (server.timeline, server.position) if server else None
        moving = position is None or position != self._position or not self._caught_up
        try:
            self._vanished.before_look()
            catalog, full = self._ports.watch.look(time.monotonic(), moving=moving)
            self._read_clock()
            if full or self._read_again.is_set() or self._waits_for_verification():
                self._read_again.clear()
                self._read_what_rarely_changes()
            if full:
                # Written before WAL goes, and that any has gone is seen by a full listing.
                self._read_removed_wal()
            unreadable = self._try_to_read()
            # One that was there is asked for until it is gone, also while nothing moves.
            other = self._other = self._other_writer() if moving or full or self._other else None
            under_way = self._under_way(catalog)
            names = [backup.name for backup in sorted(catalog.backups, key=done_at)]
            vanished = self._vanished.look(names, self._verification, self._store_time())
        except PgbackupError as exc:
            self._position = None
            return None, str(exc)
        self._position = position
        view = RepositoryView(
            catalog=catalog,
            looked=self._store_clock[1] if self._store_clock else datetime.now(UTC),
            clock=self._store_clock[0] if self._store_clock else None,
            other_writer=other.name if other else "",
            other_writer_has_written=other is not None and other.has_written,
            missing_bookkeeping=self._ports.watch.missing_bookkeeping,
            verification=self._verification,
            verification_unreadable=self._verification_unreadable,
            replaced=self._replaced(catalog),
            unreadable=unreadable,
            removed_wal=self._removed_wal,
            had_backups=self._had_backups,
            vanished=vanished,
            under_way=under_way,
        )
        self._had_backups |= bool(catalog.backups)
        return view, ""

    def _read_clock(self) -> None:
        begun = datetime.now(UTC)
        shown = self._ports.store.clock()
        self._store_clock = (shown, begun + (datetime.now(UTC) - begun) / 2) if shown else None

    def _store_time(self) -> datetime:
        """By the clock that verifications go by."""
        return self._store_clock[0] if self._store_clock else datetime.now(UTC)

    def _try_to_read(self) -> str:
        """Read the begin of some object that is listed, of one that could not be read until it can or is gone.

        Returns what is wrong, for people. What a listing shows may be out of reach: by rights, by a lost key of the
        store, or in an archive class.
        """
        key, self._unreadable = self._unreadable or self._ports.watch.sample, ""
        if not key:
            return ""
        try:
            with self._ports.store.open_read(key) as stream:
                if stream.read(1):
                    return ""
            problem = "it is empty"
        except ObjectMissing:
            if not any(info.key == key for info in self._ports.store.list(key)):
                return ""
            problem = "it is listed, and is not there"
        except PgbackupError as exc:
            if exc.retryable:
                raise
            problem = str(exc)
        self._unreadable = key
        return f"{key}: {problem}"

    def _replaced(self, catalog: Catalog) -> tuple[str, ...]:
        """What was replaced, until a verification that began after the last replacement has found it whole."""
        watch = self._ports.watch
        if watch.replacements != self._replacements or (watch.replaced and self._replaced_at is None):
            self._replacements = watch.replacements
            self._replaced_at = Noticed(self._store_time(), self._verification)
        if self._replaced_at is not None:
            for name in self._replaced_at.whole_since(self._verification):
                if (backup := catalog.backup(name)) is not None:
                    watch.forget_replaced(name, wal_read_with(catalog, backup))
        if not watch.replaced:
            self._replaced_at = None
        return watch.replaced

    def _read_what_rarely_changes(self) -> None:
        # A record that is gone, or cannot be read, takes back nothing of what it said.
        try:
            self._verification = must_read_verification(self._ports.store) or self._verification
            self._verification_unreadable = ""
        except CorruptObject as exc:
            self._verification_unreadable = str(exc)

    def _read_removed_wal(self) -> None:
        try:
            self._removed_wal = read_removed_wal(self._ports.store)
        except CorruptObject as exc:
            _log.debug("which WAL expiry has removed is not known anew: %s", exc)

    def _waits_for_verification(self) -> bool:
        """Whether something is told that ends with one: somebody may verify by hand."""
        run = self._verification
        found_damage = run is not None and (not run.ok or bool(run.damaged))
        in_doubt = found_damage or bool(self._verification_unreadable)
        return in_doubt or self._replaced_at is not None or self._vanished.any

    def _under_way(self, catalog: Catalog) -> tuple[BackupUnderWay, ...]:
        limits = self._ports.limits
        if limits is None or not is_late(catalog, limits, datetime.now(UTC)):
            return ()
        now = store_clock(self._ports.store)
        intents = (each for each in read_intents(self._ports.store) if catalog.backup(each.intent.backup) is None)
        return tuple(each.under_way(now) for each in intents)

    def _other_writer(self) -> OtherWriter | None:
        return self._others.look() if self._others is not None else None


def _server_view(seen: ServerLook, looked: datetime) -> ServerView:
    return ServerView(
        system_identifier=seen.system_identifier,
        timeline=seen.timeline,
        history=None,
        in_recovery=seen.in_recovery,
        position=seen.position,
        position_after=seen.position,
        looked=looked,
        clock=seen.clock,
        silent_seconds=seen.silent_seconds,
    )
