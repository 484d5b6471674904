"""A real server and its repository, and health as `pgbackup run` looks at it again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from pgbackup.core.health import evaluate
from pgbackup.core.health_facts import Health, HealthLimits
from pgbackup.core.schedule_spec import ScheduleSpec
from pgbackup.core.wal_clock import WalClock
from pgbackup.engines.presence.lease import Lease
from pgbackup.postgres.session import Session
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.repository.catalog_watch import CatalogWatch
from pgbackup.storage.memory import MemoryStore
from pgbackup.supervisor.health_look import HealthLook, LookPorts
from tests.streaming import ZSTD, Streaming, flush_lsn, streaming

LIMITS = HealthLimits(schedule=ScheduleSpec.parse("every 1 hour"), tz=UTC)


class Watched:
    """A server, its repository, and a look at both."""

    def __init__(self, server: ThrowawayServer) -> None:
        self.server = server
        self.store = MemoryStore()
        self.clock = WalClock()
        self.ports = ports = LookPorts(
            self.store, CatalogWatch(self.store, ZSTD), self.session, Lease(self.store, writer="test", host="here")
        )
        self._look = HealthLook(ports, self.clock)
        self.list_everything = ports.watch.forget

    def session(self) -> Session:
        return Session.connect(self.server.conninfo(user="pgbackup"), application_name="look")

    def health(self, *, later: timedelta = timedelta(0)) -> Health:
        return evaluate(self._look.look(), LIMITS, datetime.now(UTC) + later)

    def finding_keys(self) -> set[str]:
        return {finding.key for finding in self.health().findings}

    def wait_verdict(self, verdict: str, timeout: float = 20) -> Health:
        deadline = time.monotonic() + timeout
        while (health := self.health()).verdict != verdict:
            assert time.monotonic() < deadline, health.findings
            time.sleep(0.1)
        return health

    def ship_segments(self, stream: Streaming, count: int = 3) -> None:
        """Let the server end so many segments, until they are stored."""
        for _ in range(count):
            self.server.execute("SELECT pg_switch_wal()")
            self.server.execute("SELECT txid_current()")
        stream.wait_confirmed(flush_lsn(self.server))

    @contextmanager
    def shipping(self) -> Iterator[Streaming]:
        with streaming(self.server, self.store) as stream:
            stream.wait_streaming()
            yield stream
