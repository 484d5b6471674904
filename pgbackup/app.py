"""The composition root: the one module that names concrete classes and puts them together.

An App belongs to one run of the program. Nothing is built before it is asked for, so a command pays only for what it
uses; imports are late for the same reason (boto3 alone takes 0.3 s).
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from pgbackup.errors import CheckFailed, ConfigError, PgbackupError, PostgresError

if TYPE_CHECKING:
    from pgbackup.alerts.channels import Channels
    from pgbackup.config.settings import Settings
    from pgbackup.core.status import StatusSnapshot
    from pgbackup.core.worker_health import WorkerState
    from pgbackup.engines.backup.base_backup import BackupResult
    from pgbackup.engines.base import ProgressSink, StopSignal
    from pgbackup.engines.check.report import CheckReport
    from pgbackup.engines.expire.expire import ExpiryRequest
    from pgbackup.engines.port import BackupOrder, Engine
    from pgbackup.engines.wal.coverage import WalCoverage
    from pgbackup.engines.wal.read import WalReader
    from pgbackup.postgres.session import ServerFacts, Session
    from pgbackup.repository.codec import Codec
    from pgbackup.storage.base import ObjectStore
    from pgbackup.supervisor.latest_status import LatestStatus
    from pgbackup.supervisor.resident import Resident


class SettingsLoader(Protocol):
    """Reads the settings. Raises ConfigError with all problems."""

    def __call__(self, *, need_repository: bool = True) -> Settings: ...


class _Never:
    """The stop signal of a command that only Ctrl-C ends."""

    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float | None = None) -> bool:
        time.sleep(timeout or 0)
        return False


class App:
    """What commands and the resident process are made of."""

    def __init__(self, load: SettingsLoader) -> None:
        self._load = load
        self._cluster: tuple[int, int] | None = None
        self._engine: Engine | None = None

    # -- settings -------------------------------------------------------------------------------------------------

    @cached_property
    def settings(self) -> Settings:
        """The settings, read when first asked for. Raises ConfigError."""
        return self._load()

    @cached_property
    def server_settings(self) -> Settings:
        """The same for commands that use no repository, whose URL may be missing."""
        return self.__dict__.get("settings") or self._load(need_repository=False)

    # -- the repository -------------------------------------------------------------------------------------------

    def repository_url(self, *, ask_server: bool = True) -> str:
        """The repository's URL, its placeholders filled in from the server, which is asked once.

        Without ``ask_server`` only what ``know_cluster`` said counts: a restore must not take the identifier of
        whatever server happens to run on this machine. Raises ConfigError when nobody knows.
        """
        from pgbackup.config.repository_url import RepositoryUrl

        url = RepositoryUrl(self.settings.repository)
        if not url.is_template:
            return str(url)
        if self._cluster is None and ask_server:
            self._ask_cluster()
        if self._cluster is None:
            raise ConfigError(
                f"PGBACKUP_REPOSITORY has placeholders ({url}), which only a server can fill in",
                hint="Write the prefix of the cluster out in full: its system identifier in place of the placeholder.",
            )
        return url.resolve(system_identifier=self._cluster[0], pg_major=self._cluster[1])

    def know_cluster(self, *, system_identifier: int, pg_major: int) -> None:
        """Tell which cluster the placeholders in the URL stand for."""
        self._cluster = system_identifier, pg_major

    def open_store(self, *, limited: bool = True) -> ObjectStore:
        """The repository, to read and write; uploads obey PGBACKUP_UPLOAD_RATE unless not ``limited``."""
        from pgbackup.storage.open import open_store

        rate = self.settings.upload_rate if limited else None
        return open_store(self.repository_url(), upload_rate=rate, connection=self.settings.store_connection)

    def open_readonly_store(self, *, ask_server: bool = False) -> ObjectStore:
        """The repository for a command that must not write. ``ask_server`` as for ``repository_url``."""
        from pgbackup.storage.open import open_store
        from pgbackup.storage.readonly import ReadOnlyStore

        url = self.repository_url(ask_server=ask_server)
        return ReadOnlyStore(open_store(url, connection=self.settings.store_connection))

    def codec(self) -> Codec:
        """Compression and encryption as configured. Raises ConfigError for a key that cannot be used."""
        from pgbackup.repository.codec import Codec, Compression

        return Codec(
            Compression.parse(self.settings.compression),
            self._key(),
            accept_unencrypted=self.settings.accept_unencrypted,
            accept_gnupg=self.settings.accept_gnupg,
        )

    def _key(self) -> bytes | None:
        from pgbackup.repository.codec import read_key

        given = self.settings.encryption_key
        if given is None:
            return None
        try:
            return read_key(given.get_secret_value(), self.settings.encryption_key_transform)
        except ValueError as exc:
            raise ConfigError(f"PGBACKUP_ENCRYPTION_KEY: cannot be used: {exc}") from None

    @contextmanager
    def open_expiry(self, *, apply: bool, accept_missing: bool) -> Iterator[ExpiryRequest]:
        """The repository with the retention policy, read-only unless ``apply``; only who holds the lease removes."""
        from pgbackup.engines.expire.expire import ExpiryRequest
        from pgbackup.engines.presence.lease import Lease
        from pgbackup.supervisor.from_settings import retention

        settings = self.settings
        with closing(self.open_store() if apply else self.open_readonly_store(ask_server=True)) as store:
            lease = Lease(store, writer=settings.host, host=settings.host)

            def may_run() -> bool:
                # `run` holds the lease of this repository; its operator may expire beside it.
                stored = lease.read()
                if stored is None or stored[0].host == settings.host or not lease.is_alive(stored[0]):
                    return True
                raise CheckFailed(
                    f"`pgbackup run` of another host, {stored[0].host}, is at work in this repository",
                    hint=f"If this is the repository that you mean, say PGBACKUP_HOST={stored[0].host}.",
                )

            policy, remove = retention(settings), self.engine().remove if apply else None
            yield ExpiryRequest(store, self.codec(), policy, settings.tz, _Never(), may_run, accept_missing, remove)

    # -- the engine -----------------------------------------------------------------------------------------------

    def engine(self) -> Engine:
        """What moves the bytes, as PGBACKUP_ENGINE says. Raises ToolError when its program is not there."""
        if self._engine is None:
            settings, codec = self.settings, self.codec()
            if settings.engine == "native":
                from pgbackup.engines.native.engine import native_engine

                self._engine = native_engine(settings, codec, self.conninfo)
            else:
                from pgbackup.engines.wale.assembly import tool_engine

                self._engine = tool_engine(settings, codec, self.conninfo, self.repository_url(), os.environ)
            atexit.register(self._engine.close)
        return self._engine

    def wal_reader(self, system_identifier: int | None) -> WalReader:
        """Reads WAL for ``restore_command``, which starts us for many a segment: the native way loads no more than it
        needs."""
        store = self.open_readonly_store()
        if self.settings.engine != "native":
            return self.engine().wal_reader(store, system_identifier=system_identifier)
        from pgbackup.engines.wal.read import WalReader

        return WalReader(store, self.codec(), system_identifier=system_identifier, checks_records=True)

    def tool_program(self) -> str:
        """The absolute path of the engine's program; empty for the native engine. Raises ToolError."""
        from pgbackup.engines.wale.find import find_program

        settings = self.settings
        return "" if settings.engine == "native" else str(find_program(settings.engine, settings.tool, os.environ))

    # -- the server -----------------------------------------------------------------------------------------------

    @property
    def conninfo(self) -> str:
        """libpq's connection string; empty when libpq's own variables say everything."""
        given = self.server_settings.dsn
        return given.get_secret_value() if given is not None else ""

    @property
    def admin_conninfo(self) -> str:
        """The connection string of a role that may create roles; libpq's own variables count where it says nothing."""
        given = self.server_settings.admin_dsn
        return given.get_secret_value() if given is not None else ""

    def open_session(self) -> Session:
        """An SQL session with the server."""
        from pgbackup.postgres.session import Session

        return Session.connect(self.conninfo, application_name=f"{self.server_settings.application_name}-sql")

    def server_facts(self) -> ServerFacts:
        """One look at the server."""
        with self.open_session() as session:
            facts = session.facts()
        self.know_cluster(system_identifier=facts.system_identifier, pg_major=facts.major)
        return facts

    def check(self) -> CheckReport:
        """Try everything that backups need of server and repository."""
        from pgbackup.engines.check.check import CheckRequest, run_check
        from pgbackup.engines.check.server import ServerRequest

        settings = self.settings
        flush = settings.wal_flush_interval if settings.engine == "native" else None
        server = ServerRequest(self.conninfo, settings.application_name, settings.slot, flush)
        return run_check(
            CheckRequest(
                server, lambda: self.open_store(limited=False), self.codec, settings.inherited, make_engine=self.engine
            )
        )

    def _ask_cluster(self) -> None:
        try:
            self.server_facts()
        except PostgresError as exc:
            raise _unknown_cluster(exc) from exc

    # -- the resident process -------------------------------------------------------------------------------------

    def run(self, stop: threading.Event, open_progress: Callable[[], ProgressSink]) -> None:
        """Stream WAL and take base backups until ``stop`` is set; each backup shows its progress in a new sink."""
        from pgbackup.supervisor import from_settings
        from pgbackup.supervisor.alert_desk import AlertDesk
        from pgbackup.supervisor.latest_status import LatestStatus
        from pgbackup.supervisor.resident import Resident, Works
        from pgbackup.supervisor.waiting import wait_for_server

        status, desk = LatestStatus(), AlertDesk(from_settings.desk(self.settings))
        residents: list[Resident] = []
        desk.start()
        with self._serve(status, residents), self._tell_systemd(status, residents, stop):
            if not wait_for_server(self.repository_url, stop, desk, status, from_settings.limits(self.settings)):
                desk.finish(self.settings.stop_timeout.total_seconds() / 2)
                return
            store, codec, engine = self.open_store(), self.codec(), self.engine()

            def take_backup(wal: WalCoverage, stop: StopSignal) -> None:
                engine.take_backup(self._order(store, wal), open_progress(), stop)

            works = Works(store, codec, self.conninfo, engine, take_backup)
            residents.append(Resident(self.settings, works, status, desk))
            residents[0].run(stop)
            engine.close()

    def _serve(self, status: LatestStatus, residents: Sequence[Resident]) -> AbstractContextManager[object]:
        """The pages, also while the rest waits for the server."""
        from pgbackup import __version__
        from pgbackup.config.listen import parse_listen

        listen = parse_listen(self.settings.http)
        if listen is None:
            return nullcontext()
        from pgbackup.web.pages import WebSources
        from pgbackup.web.server import WebServer

        sources = WebSources(status.get, lambda: _worker_states(residents), lambda: datetime.now(UTC), __version__)
        return WebServer(listen, sources)

    def _tell_systemd(
        self, status: LatestStatus, residents: Sequence[Resident], stop: StopSignal
    ) -> AbstractContextManager[object]:
        """Readiness and the watchdog, where systemd started us."""
        from pgbackup.supervisor.sd_notify import NoticeSources, NotifySocket, ServiceNotices

        where = NotifySocket.from_environ(os.environ, os.getpid())
        if where is None:
            return nullcontext()
        seconds = self.settings.stop_timeout.total_seconds()
        sources = NoticeSources(lambda: _worker_states(residents), status.get, lambda: datetime.now(UTC), stop, seconds)
        return ServiceNotices(where, sources)

    def alert_channels(self) -> Channels:
        """The channels of the settings, and what is wrong with them."""
        from pgbackup.alerts.channels import build_channels
        from pgbackup.supervisor.from_settings import alert_settings

        return build_channels(alert_settings(self.settings))

    def status(self) -> StatusSnapshot:
        """One look at server, bucket and slot, without any process of ours. Nothing is written."""
        from pgbackup.supervisor.status_look import look_once, without_server

        try:
            opened = self.open_readonly_store(ask_server=True)
        except ConfigError as exc:
            if not isinstance(exc.__cause__, PostgresError):
                raise
            return without_server(exc.__cause__, self.settings)
        with closing(opened) as store:
            return look_once(self.settings, store, self.codec(), self.open_session)

    def take_backup(
        self,
        *,
        label: str,
        permanent: bool,
        progress: ProgressSink,
        stop: StopSignal | None = None,
        max_rate: int | None = None,
    ) -> BackupResult:
        """One base backup now; its WAL comes from the `pgbackup run` that streams, or from a stream of its own.

        ``max_rate``: bytes per second read from the server, else as the settings say.
        """
        from pgbackup.engines.wal.coverage import choose_coverage
        from pgbackup.supervisor.memory import bound_heaps

        # It is often started in the container of `run`, inside one memory limit with it.
        bound_heaps()
        settings, engine = self.settings, self.engine()
        with closing(self.open_store()) as store:
            wal = choose_coverage(
                self.conninfo,
                f"{settings.application_name}-sql",
                settings.slot,
                store,
                self.codec(),
                writer=settings.host,
                shipping=engine.shipping(store),
            )
            with closing(wal):
                order = self._order(store, wal, label=label, permanent=permanent, max_rate=max_rate)
                return engine.take_backup(order, progress, stop or _Never())

    def _order(
        self,
        store: ObjectStore,
        wal: WalCoverage,
        *,
        label: str = "",
        permanent: bool = False,
        max_rate: int | None = None,
    ) -> BackupOrder:
        from pgbackup.engines.port import BackupOrder
        from pgbackup.storage.limited import Priority, at_priority

        at_low = at_priority(store, Priority.BASE_BACKUP)
        return BackupOrder(at_low, wal, label, permanent, max_rate or self.settings.backup_rate)


def _worker_states(residents: Sequence[Resident]) -> list[WorkerState]:
    """None before the resident process is put together."""
    return residents[0].worker_states() if residents else []


def _unknown_cluster(exc: PgbackupError) -> ConfigError:
    return ConfigError(
        "PGBACKUP_REPOSITORY has placeholders, which the server fills in, and the server did not answer",
        detail=str(exc),
        hint=exc.hint or "Start the server, or write the prefix of the cluster out in full.",
    )
