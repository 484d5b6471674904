"""Real PostgreSQL servers for the tests: every major version on this machine, made quickly and always stopped.

``make_server(major)`` copies a directory that initdb made once per session, so servers of one kind share their system
identifier; ``fresh=True`` runs initdb again, for a test that needs two clusters. The superuser is ``postgres``; the
role ``pgbackup`` has LOGIN, REPLICATION and pg_monitor and nothing more. Where ``host_auth`` asks for passwords both
have ``PASSWORD``.

fsync is off: a killed process loses nothing by that, only a killed machine would.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pgbackup.errors import ToolError
from pgbackup.postgres.binaries import Installation, find_installations
from pgbackup.postgres.server_settings import SettingValue, append_settings
from pgbackup.postgres.throwaway import ClusterOptions, ThrowawayServer, create_cluster
from pgbackup.postgres.unprivileged import Account, make_workspace, readable_installation, server_account

MAJORS = (14, 15, 16, 17, 18)
DEFAULT_MAJOR = 18
PASSWORD = "it is only a test"
ROLE = "pgbackup"

_QUICK: Mapping[str, SettingValue] = {
    "fsync": False,
    "shared_buffers": "16MB",
    "max_connections": 40,
    "max_wal_senders": 10,
    "max_replication_slots": 10,
    "wal_level": "replica",
    "hot_standby": True,
    "jit": False,
    "log_replication_commands": True,
    "log_line_prefix": "%m [%p] %a ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_FAILED = pytest.StashKey[bool]()
_FOUND = find_installations()


@dataclass
class Templates:
    """Clusters that initdb has made in this session, by kind; copied for every server."""

    account: Account
    directory: Path
    made: dict[tuple[object, ...], Path] = field(default_factory=dict)

    def copy(self, installation: Installation, options: ClusterOptions, target: Path) -> None:
        kind = (installation.bindir, options.segment_mb, options.data_checksums, options.encoding, options.host_auth)
        if kind not in self.made:
            self.made[kind] = self.create(installation, options, self.directory / f"template-{len(self.made)}")
        self.account.run(["cp", "-a", "--reflink=auto", self.made[kind], target])

    def create(self, installation: Installation, options: ClusterOptions, target: Path) -> Path:
        create_cluster(installation, target, options, account=self.account)
        server = ThrowawayServer(installation, target, account=self.account, log_path=self.directory / "template.log")
        with server:
            server.start()
            server.execute(f"CREATE ROLE {ROLE} LOGIN REPLICATION PASSWORD '{PASSWORD}'; GRANT pg_monitor TO {ROLE}")
            server.stop("fast")
        return target


class ServerFactory:
    """Makes servers for one test; ``close`` stops all of them."""

    def __init__(self, installations: Mapping[int, Installation], templates: Templates, workspace: Path) -> None:
        self.installations = installations
        self.account = templates.account
        self.workspace = workspace
        self.servers: list[ThrowawayServer] = []
        self._templates = templates

    def __call__(
        self,
        major: int | None = None,
        *,
        settings: Mapping[str, SettingValue] | None = None,
        fresh: bool = False,
        start: bool = True,
        **options: Any,
    ) -> ThrowawayServer:
        """A new server. ``options``: the fields of ClusterOptions (segment_mb, data_checksums, encoding, host_auth)."""
        installation = self.installation(major)
        target = self.workspace / f"server-{len(self.servers)}"
        cluster = ClusterOptions(settings=_QUICK, password=PASSWORD, **options)
        if fresh:
            self._templates.create(installation, cluster, target)
        else:
            self._templates.copy(installation, cluster, target)
        append_settings(target / "postgresql.conf", settings or {})
        return self.over(target, installation.major, start=start)

    def over(
        self,
        data_directory: Path,
        major: int | None = None,
        *,
        settings: Mapping[str, SettingValue] | None = None,
        start: bool = True,
        wait: bool = True,
        reads_everything: bool = False,
    ) -> ThrowawayServer:
        """A server over a directory that exists: a restored one. ``settings`` are for its first run only.

        ``reads_everything``: its restore_command may run pgbackup from a virtual environment that is closed to others.
        """
        number = len(self.servers)
        log_path = self.workspace / f"server-{number}.log"
        server = ThrowawayServer(
            self.installation(major),
            data_directory,
            account=self.account,
            log_path=log_path,
            reads_everything=reads_everything,
        )
        self.servers.append(server)
        if start:
            server.start(settings=settings, wait=wait)
        return server

    def standby_of(
        self, primary: ThrowawayServer, *, slot: str | None = None, settings: Mapping[str, SettingValue] | None = None
    ) -> ThrowawayServer:
        """A hot standby that streams from ``primary``, copied with pg_basebackup (of any newer version)."""
        target = self.workspace / f"server-{len(self.servers)}"
        command: list[str | Path] = [
            self._copying_tool(primary.major), "--pgdata", target, "--dbname", primary.conninfo(local=True),
            "--checkpoint", "fast", "--wal-method", "stream", "--no-sync", "--no-manifest",
        ]  # fmt: skip
        if slot is not None:
            command += ["--slot", slot, "--create-slot"]
        self.account.run(command)
        extra: dict[str, SettingValue] = {"primary_conninfo": primary.conninfo(application_name="standby")}
        if slot is not None:
            extra["primary_slot_name"] = slot
        append_settings(target / "postgresql.auto.conf", {**extra, **(settings or {})})
        signal_file = target / "standby.signal"
        signal_file.touch()
        self.account.own(signal_file)
        return self.over(target, primary.major)

    def installation(self, major: int | None = None) -> Installation:
        """The programs of a major version; skips the test when they are not on this machine."""
        if major is None:
            major = DEFAULT_MAJOR if DEFAULT_MAJOR in self.installations else max(self.installations, default=0)
        if major not in self.installations:
            pytest.skip(f"PostgreSQL {major or ''} is not on this machine")
        return self.installations[major]

    def new_directory(self, name: str) -> Path:
        """An empty directory of the servers' account, 0700: a place to restore into."""
        return self.account.make_directory(self.workspace / name)

    def close(self) -> None:
        for server in reversed(self.servers):
            server.close()

    def _copying_tool(self, major: int) -> Path:
        for other, installation in sorted(self.installations.items()):
            if other >= major and "pg_basebackup" in installation.tools:
                return readable_installation(installation, self.account).tool("pg_basebackup")
        raise ToolError(f"no pg_basebackup that can copy PostgreSQL {major}")


@pytest.fixture(scope="session")
def installations() -> dict[int, Installation]:
    """The PostgreSQL versions on this machine."""
    return _FOUND


@pytest.fixture(scope="session")
def postgres_templates() -> Iterator[Templates]:
    account = server_account()
    directory = make_workspace(account)
    yield Templates(account, directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=MAJORS, ids=lambda major: f"pg{major}")
def pg_major(request: pytest.FixtureRequest, installations: dict[int, Installation]) -> int:
    """Every major version in turn; the test is skipped for one that is not on this machine."""
    if request.param not in installations:
        pytest.skip(f"PostgreSQL {request.param} is not on this machine")
    return int(request.param)


@pytest.fixture
def workspace(postgres_templates: Templates) -> Iterator[Path]:
    """A directory that root and the servers' account can both use (pytest's tmp_path is closed to the latter)."""
    directory = make_workspace(postgres_templates.account)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def make_server(
    request: pytest.FixtureRequest,
    installations: dict[int, Installation],
    postgres_templates: Templates,
    workspace: Path,
) -> Iterator[ServerFactory]:
    """Makes servers that are stopped, and removed, when the test ends; shows their logs when it failed."""
    with ExitStack() as stack:
        factory = ServerFactory(installations, postgres_templates, workspace)
        stack.callback(factory.close)
        yield factory
        if request.node.stash.get(_FAILED, False):
            for server in factory.servers:
                print(f"--- the end of the log of {server.data_directory}\n{server.log_tail(60)}")


@pytest.fixture
def server(make_server: ServerFactory) -> ThrowawayServer:
    """One running server of the default major version."""
    return make_server()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


def pytest_report_header() -> list[str]:
    return [str(installation) for installation in _FOUND.values()] or ["no PostgreSQL found"]
