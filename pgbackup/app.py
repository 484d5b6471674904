"""The composition root: the one module that names concrete classes and puts them together.

An App belongs to one run of the program. Nothing is built before it is asked for, so a command pays only for what it
uses; imports are late for the same reason (boto3 alone takes 0.3 s).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from pgbackup.errors import ConfigError, PgbackupError, PostgresError

if TYPE_CHECKING:
    from pgbackup.config.settings import Settings
    from pgbackup.engines.native.check_report import CheckReport
    from pgbackup.postgres.session import ServerFacts, Session
    from pgbackup.repository.codec import Codec
    from pgbackup.storage.base import ObjectStore


class SettingsLoader(Protocol):
    """Reads the settings. Raises ConfigError with all problems."""

    def __call__(self, *, need_repository: bool = True) -> Settings: ...


class App:
    """What commands and the resident process are made of."""

    def __init__(self, load: SettingsLoader) -> None:
        self._load = load
        self._cluster: tuple[int, int] | None = None

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

        return open_store(self.repository_url(), upload_rate=self.settings.upload_rate if limited else None)

    def open_readonly_store(self, *, ask_server: bool = False) -> ObjectStore:
        """The repository for a command that must not write. ``ask_server`` as for ``repository_url``."""
        from pgbackup.storage.open import open_store
        from pgbackup.storage.readonly import ReadOnlyStore

        return ReadOnlyStore(open_store(self.repository_url(ask_server=ask_server)))

    def codec(self) -> Codec:
        """Compression and encryption as configured. Raises ConfigError for a key that cannot be used."""
        from pgbackup.repository.codec import Codec, Compression

        return Codec(Compression.parse(self.settings.compression), self._key())

    def _key(self) -> bytes | None:
        from pgbackup.repository.codec import read_key

        given = self.settings.encryption_key
        if given is None:
            return None
        try:
            return read_key(given.get_secret_value(), self.settings.encryption_key_transform)
        except ValueError as exc:
            raise ConfigError(f"PGBACKUP_ENCRYPTION_KEY: cannot be used: {exc}") from None

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
        from pgbackup.engines.native.check import CheckRequest, run_check
        from pgbackup.engines.native.check_server import ServerRequest

        settings = self.settings
        server = ServerRequest(self.conninfo, settings.application_name, settings.slot, settings.wal_flush_interval)
        return run_check(CheckRequest(server, lambda: self.open_store(limited=False), self.codec))

    def _ask_cluster(self) -> None:
        try:
            self.server_facts()
        except PostgresError as exc:
            raise _unknown_cluster(exc) from exc


def _unknown_cluster(exc: PgbackupError) -> ConfigError:
    return ConfigError(
        "PGBACKUP_REPOSITORY has placeholders, which the server fills in, and the server did not answer",
        detail=str(exc),
        hint=exc.hint or "Start the server, or write the prefix of the cluster out in full.",
    )
