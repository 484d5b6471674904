"""What `pgbackup run` is made of: the WAL stream, the base backup job, the tick; put together from settings.

The WAL stream and the job share one WalProgress and one lease; everything else they know comes from the repository.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from pgbackup.config.settings import Settings
from pgbackup.core.schedule_spec import ScheduleSpec, next_due
from pgbackup.engines.base import StopSignal
from pgbackup.engines.native.backup_seal import resume_seals
from pgbackup.engines.native.lease import Lease
from pgbackup.engines.native.resident_wal import ResidentWal
from pgbackup.engines.native.wal_progress import WalProgress
from pgbackup.engines.native.wal_receiver import ReceiverOptions, WalReceiver
from pgbackup.postgres.session import Session
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec
from pgbackup.storage.base import ObjectStore
from pgbackup.supervisor.memory import release_free_memory
from pgbackup.supervisor.scheduled_job import JobLine, JobPorts, ScheduledJob
from pgbackup.supervisor.service import Service
from pgbackup.supervisor.ticker import Ticker
from pgbackup.supervisor.worker import Worker

_TICK_SECONDS = 5
_TRIM_SECONDS = 15
_STOP_MARGIN_SECONDS = 2.0
_log = logging.getLogger(__name__)

TakeBackup = Callable[[ResidentWal, StopSignal], None]


def writer_name(host: str) -> str:
    """A name for this process that no other has."""
    return f"{host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


class Resident:
    """The parts of one resident process. ``take_backup`` runs one base backup on the given WAL coverage."""

    def __init__(
        self, settings: Settings, store: ObjectStore, codec: Codec, conninfo: str, take_backup: TakeBackup
    ) -> None:
        self._settings = settings
        self._store = store
        self._codec = codec
        self._conninfo = conninfo
        self._take_backup = take_backup
        self._writer = writer_name(settings.host)
        self._spec = ScheduleSpec.parse(settings.schedule)
        self.progress = WalProgress()
        self._lease = Lease(store, writer=self._writer, host=settings.host)

    def run(self, stop: threading.Event) -> None:
        """Run until ``stop`` is set."""
        receiver = WalReceiver(self._receiver_options(), self._store, self._codec, self.progress, self._lease)
        backups = ScheduledJob("base backup", JobPorts(self._last_backup, self._may_run, self._backup, self._next_due))
        ticker = Ticker()
        ticker.every(_TICK_SECONDS, backups.tick)
        ticker.every(_TRIM_SECONDS, release_free_memory)
        workers = [Worker("wal", receiver.run), Worker("jobs", JobLine([backups]).run), Worker("ticker", ticker.run)]
        Service(workers, stop, stop_seconds=self._settings.stop_timeout.total_seconds()).run()
        self._release()

    def _receiver_options(self) -> ReceiverOptions:
        settings = self._settings
        stop = settings.stop_timeout.total_seconds()
        return ReceiverOptions(
            conninfo=self._conninfo,
            application_name=settings.application_name,
            slot=settings.slot,
            flush_seconds=settings.wal_flush_interval.total_seconds(),
            stop_seconds=max(stop / 2, stop - _STOP_MARGIN_SECONDS),
            concurrency=settings.wal_upload_concurrency,
            writer=self._writer,
            host=settings.host,
            adopt=settings.adopt,
        )

    def _last_backup(self) -> datetime | None:
        catalog = read_catalog(self._store, self._codec, with_marks=False)
        finished = [b.finished for b in catalog.backups if not catalog.why_not_restorable(b)]
        return max(finished, default=None)

    def _next_due(self, last: datetime | None, now: datetime) -> datetime:
        """Without any backup one is due now; after downtime the moment lies in the past, which is due as well."""
        return now if last is None else next_due(self._spec, last, self._settings.tz)

    def _may_run(self) -> bool:
        with Session.connect(self._conninfo, application_name=self._settings.application_name) as session:
            facts = session.facts()
        return self._lease.acquire(facts.system_identifier, facts.timeline)

    def _backup(self, stop: StopSignal) -> None:
        """One base backup, unless an earlier one was copied and only has to be sealed: then that is the backup."""
        coverage = ResidentWal(self.progress, self._store)
        coverage.wait_streaming(stop)
        if resume_seals(self._store, self._settings.host, stop):
            now = datetime.now(UTC)
            if self._next_due(self._last_backup(), now) > now:
                return
        self._take_backup(coverage, stop)

    def _release(self) -> None:
        # Best effort within the time to stop: a lease that is not given back grows stale by itself.
        if self.progress.get().problem:
            return
        try:
            self._lease.release()
        except Exception as exc:  # noqa: BLE001 - the process ends here, whatever the store says
            _log.warning("the lease could not be given back: %s", exc)
