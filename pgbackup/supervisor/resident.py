"""What `pgbackup run` is made of: the WAL stream, the scheduled jobs, the health check, the alerts; put together here.

The WAL stream and the jobs share one WalProgress and one lease; everything else they know comes from the repository.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pgbackup.config.settings import Settings
from pgbackup.core.findings import Finding, Severity
from pgbackup.core.gap_findings import gaps_need_backup
from pgbackup.core.health import newest_restorable
from pgbackup.core.health_backups import done_at
from pgbackup.core.health_facts import Health
from pgbackup.core.worker_health import WorkerState
from pgbackup.engines.backup.elsewhere import backup_elsewhere
from pgbackup.engines.backup.seal import resume_seals
from pgbackup.engines.base import StopSignal
from pgbackup.engines.expire.expire import ExpiryRequest
from pgbackup.engines.port import Engine
from pgbackup.engines.presence.lease import Lease
from pgbackup.engines.wal.progress import WalProgress
from pgbackup.engines.wal.receiver import ReceiverOptions, WalReceiver
from pgbackup.engines.wal.resident_wal import ResidentWal
from pgbackup.engines.wale.tool_processes import own_children
from pgbackup.errors import BackupError, PgbackupError
from pgbackup.postgres.session import Session
from pgbackup.repository.backup_objects import with_missing_objects
from pgbackup.repository.catalog_reader import claim_prefix, read_catalog
from pgbackup.repository.catalog_watch import CatalogWatch
from pgbackup.repository.codec import Codec
from pgbackup.repository.documents import ClusterDocument
from pgbackup.storage.base import ObjectStore
from pgbackup.supervisor import from_settings
from pgbackup.supervisor.alert_desk import AlertDesk
from pgbackup.supervisor.expire_job import ExpireJob
from pgbackup.supervisor.failing_job import FailingJob
from pgbackup.supervisor.health_look import HealthLook, LookPorts
from pgbackup.supervisor.health_watch import HealthSources, HealthWatch
from pgbackup.supervisor.latest_status import LatestStatus
from pgbackup.supervisor.memory import release_free_memory
from pgbackup.supervisor.orphans import OrphanReaper, is_reaper
from pgbackup.supervisor.scheduled_job import JobLine, JobPorts, ScheduledJob
from pgbackup.supervisor.service import Service
from pgbackup.supervisor.shared_wal_clock import SharedWalClock
from pgbackup.supervisor.slot_guard import SlotGuard
from pgbackup.supervisor.status_snapshot import ProcessView, make_snapshot
from pgbackup.supervisor.ticker import Ticker
from pgbackup.supervisor.verdict_watch import VerdictWatch
from pgbackup.supervisor.verify_job import VerifyJob
from pgbackup.supervisor.worker import Worker

_TICK_SECONDS = 5
_TRIM_SECONDS = 15
_STOP_MARGIN_SECONDS = 3.0
_WAL_IS_GONE = ("wal:hole:", "wal:vanished")
_ASKS_STREAM, _ASK_STREAM_SECONDS = 50, 0.1
_log = logging.getLogger(__name__)

TakeBackup = Callable[[ResidentWal, StopSignal], None]


def writer_name(host: str) -> str:
    """A name for this process that no other has."""
    return f"{host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Works:
    """What a resident process works with. ``take_backup`` runs one base backup on the given WAL coverage."""

    store: ObjectStore
    codec: Codec
    conninfo: str
    engine: Engine
    take_backup: TakeBackup


class Resident:
    """The parts of one resident process."""

    def __init__(self, settings: Settings, works: Works, status: LatestStatus, desk: AlertDesk) -> None:
        self._settings = settings
        self._store = store = works.store
        self._codec = works.codec
        self._conninfo = works.conninfo
        self._engine = works.engine
        self._take_backup = works.take_backup
        self._status = status
        self._writer = writer_name(settings.host)
        self._schedules = from_settings.Schedules(settings)
        self.progress = WalProgress()
        self._lease = Lease(store, writer=self._writer, host=settings.host)
        self._desk = desk
        self._service: Service | None = None
        self._guard: SlotGuard | None = None
        self._receiver: WalReceiver | None = None
        self._verdicts = VerdictWatch(settings.health_interval.total_seconds())
        self._seen: frozenset[str] = frozenset()
        self._expire: ExpireJob | None = None
        self._backup_job: ScheduledJob | None = None
        self._failing: list[FailingJob] = []
        self._branches_seen: set[int] = set()
        self._verified: Callable[[], None] = lambda: None

    def worker_states(self) -> list[WorkerState]:
        """One look at every worker; none before they were started."""
        return self._service.worker_states() if self._service is not None else []

    def run(self, stop: threading.Event) -> None:
        """Run until ``stop`` is set."""
        jobs = self._jobs()
        self._backup_job = jobs[0]
        receiver = self._receiver = WalReceiver(
            self._receiver_options(),
            self._store,
            self._codec,
            self.progress,
            self._lease,
            shipping=self._engine.shipping(self._store),
            on_gap=jobs[0].run_now,
        )
        self._guard = SlotGuard(
            self._session, self._settings.slot, let_go=receiver.let_go, limit_bytes=self._settings.slot_max_retained
        )
        guard, interval = self._guard, self._settings.health_interval.total_seconds()
        health = self._health_watch(jobs[0])
        ticker = Ticker()
        ticker.every(1, health.sample)
        ticker.every(_TICK_SECONDS, self._tell_at_once)
        for job in jobs:
            ticker.every(_TICK_SECONDS, job.tick)
        ticker.every(_TRIM_SECONDS, release_free_memory)
        if is_reaper():
            ticker.every(_TICK_SECONDS, OrphanReaper(own_children).sweep)
        workers = [
            Worker("wal", receiver.run),
            Worker("jobs", JobLine([job for job in jobs if job.name != from_settings.VERIFY_JOB]).run),
            # For itself: reading everything back takes hours, and must not hold up a backup.
            Worker("verify", JobLine([job for job in jobs if job.name == from_settings.VERIFY_JOB]).run),
            Worker("slot", lambda stop: guard.run(stop, interval)),
            Worker("health", health.run),
            Worker("ticker", ticker.run),
        ]
        self._desk.keep_book_in(self._store)
        self._service = Service(
            workers,
            stop,
            stop_seconds=self._settings.stop_timeout.total_seconds(),
            on_stopping={"the alerts that wait": self._desk.finish, "the lease": self._release},
        )
        self._service.run()

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

    # -- jobs -----------------------------------------------------------------------------------------------------

    def _jobs(self) -> list[ScheduledJob]:
        """Base backups first."""
        elsewhere = partial(backup_elsewhere, self._store, self._settings.host)
        ports = JobPorts(self._last_backup, self._may_run, self._backup, self._schedules.next_backup, elsewhere)
        jobs = [ScheduledJob(from_settings.BACKUP_JOB, ports, observer=self._desk)]
        if self._schedules.verify is not None:
            verify = VerifyJob(self._store, self._codec)
            work = partial(self._verify_and_tell, verify)
            ports = JobPorts(verify.last_done, self._may_run, work, self._schedules.next_verification)
            jobs.append(ScheduledJob(from_settings.VERIFY_JOB, ports, observer=self._desk))
            self._failing.append(FailingJob("verify:failing", jobs[-1].name, jobs[-1].view))
        if self._schedules.expire is not None:
            expire = self._expire = ExpireJob(self._expiry_request)
            ports = JobPorts(expire.last_done, self._may_expire, expire.work, self._schedules.next_expiry)
            jobs.append(ScheduledJob(from_settings.EXPIRE_JOB, ports, observer=self._desk))
            self._failing.append(FailingJob("expire:failing", jobs[-1].name, jobs[-1].view))
        return jobs

    def _expiry_request(self) -> ExpiryRequest:
        settings = self._settings
        return ExpiryRequest(
            self._store,
            self._codec,
            from_settings.retention(settings),
            settings.tz,
            threading.Event(),
            self._holds_lease,
            remove_by_tool=self._engine.remove,
        )

    def _holds_lease(self) -> bool:
        stored = self._lease.read()
        return stored is not None and self._lease.is_ours(stored[0])

    def _last_backup(self) -> datetime | None:
        """None makes one due at once: when there is none, and when nothing can be recovered after a gap."""
        catalog = with_missing_objects(
            self._store, read_catalog(self._store, self._codec, with_marks=False, needs_bookkeeping=False)
        )
        newest = newest_restorable(catalog)
        if newest is None or gaps_need_backup(catalog, newest):
            return None
        return done_at(newest)

    def _may_run(self) -> bool:
        """Whether the repository is our server's, and the lease ours: expiry must never remove what another one needs.

        Raises WrongCluster, and BackupError while nothing is streamed for a reason that only people can mend (a clone
        that has not been adopted): that ends when the stream is tried the next time.
        """
        position = self.progress.get()
        if position.permanent and position.problem and not position.streaming:
            raise BackupError("WAL is not being shipped", detail=position.problem)
        with self._session() as session:
            facts = session.facts()
        cluster = ClusterDocument(facts.system_identifier, facts.segment_bytes, facts.version_num)
        claim_prefix(self._store, cluster, self._codec)
        # The server names the timeline of its last checkpoint, which comes minutes after a promotion.
        return self._lease.acquire(facts.system_identifier, max(facts.timeline, position.timeline))

    def _may_expire(self) -> bool:
        """The stream says first whether this server may go on here; it may still be asking."""
        for _ in range(_ASKS_STREAM):
            position = self.progress.get()
            if position.began or position.problem:
                return self._may_run()
            time.sleep(_ASK_STREAM_SECONDS)
        raise BackupError("WAL streaming has not begun yet")

    def _verify_and_tell(self, verify: VerifyJob, stop: StopSignal) -> str:
        """What it finds is judged at the next look, which comes at once; else it would be at the hourly full one."""
        found = verify.work(stop)
        self._verified()
        return found

    def _backup(self, stop: StopSignal) -> str:
        """One base backup, unless an earlier one was copied and only has to be sealed: then that is the backup."""
        coverage = ResidentWal(self.progress, self._store)
        coverage.wait_streaming(stop)
        if resume_seals(self._store, self._settings.host, stop):
            now = datetime.now(UTC)
            if self._schedules.next_backup(self._last_backup(), now) > now:
                return ""
        self._take_backup(coverage, stop)
        return ""

    # -- health ---------------------------------------------------------------------------------------------------

    def _health_watch(self, backups: ScheduledJob) -> HealthWatch:
        clock = SharedWalClock()
        limits = from_settings.limits(self._settings)
        catalogs = CatalogWatch(self._store, self._codec, put_by_us=self.progress.uploads.has_put)
        others_expire = self._schedules.expire is None
        ports = LookPorts(self._store, catalogs, self._session, self._lease, limits, others_expire=others_expire)
        look = HealthLook(ports, clock)
        sources = HealthSources(look=look.look, backups=backups.view, others=self._findings, publish=self._publish)
        interval = self._settings.health_interval.total_seconds()
        watch = HealthWatch(sources, limits, self.progress, clock, interval_seconds=interval)

        def verified() -> None:
            look.read_again()
            watch.look_soon()

        self._verified = verified
        return watch

    def _findings(self, store_answers: bool) -> list[Finding]:
        workers = self._service.worker_findings() if self._service is not None else []
        slot = self._guard.findings() if self._guard is not None else []
        expire = self._expire.findings() if self._expire is not None else []
        failing = (finding for job in self._failing for finding in job.findings(store_answers=store_answers))
        return [*workers, *slot, *expire, *failing, *self._desk.findings()]

    def _publish(self, health: Health, now: datetime) -> None:
        self._verdicts.note()
        self._mend(health)
        self._back_up_new_branch(health)
        # The pages first: alerts ask the repository for what was open before.
        self._publish_snapshot(health, now)
        self._desk.round(health, now)
        self._publish_snapshot(health, now)

    def _back_up_new_branch(self, health: Health) -> None:
        """After a restore or a promotion a base backup is due at once: the branch that is left keeps its own."""
        facts = health.facts
        if facts is None or facts.server is None or facts.repository is None or self._backup_job is None:
            return
        timeline, newest = facts.server.timeline, newest_restorable(facts.repository.catalog)
        if newest is not None and newest.timeline < timeline and timeline not in self._branches_seen:
            self._branches_seen.add(timeline)
            _log.info("timeline %d has no base backup of its own yet: taking one", timeline)
            self._backup_job.run_now()

    def _mend(self, health: Health) -> None:
        """What only a base backup mends is not left to the schedule, and of WAL that is gone from the bucket the server
        is asked again. Once for each time that it is found."""
        seen = frozenset(f.key for f in health.findings if f.severity is Severity.CRITICAL)
        new, self._seen = seen - self._seen, seen
        if any(key.startswith(_WAL_IS_GONE) for key in new):
            self._stream_anew()
        if self._backup_job is None:
            return
        if any(key.startswith("wal:hole:") for key in new):
            self._backup_job.run_now()
        elif new & {"backup:none", "backup:newest-not-restorable"}:
            self._backup_job.look_again()

    def _stream_anew(self) -> None:
        """A stream that begins looks what is stored, and ships what is not."""
        if self._receiver is None:
            return
        _log.warning("WAL is gone from the repository: beginning the stream anew, to ship what the server still has")
        try:
            with self._receiver.let_go():
                pass
        except PgbackupError as exc:
            _log.warning("the stream goes on as it is: %s", exc)

    def _tell_at_once(self) -> None:
        found = self._guard.urgent() if self._guard is not None else []
        stale = self._verdicts.finding()
        if stale is not None:
            workers = self._service.worker_findings() if self._service is not None else []
            found = [stale, *workers, *found]
        self._desk.alarm(found, datetime.now(UTC))

    def _publish_snapshot(self, health: Health, now: datetime) -> None:
        view = ProcessView(
            self.progress.get(), self.progress.uploads.totals(), self._desk.active(), self.worker_states()
        )
        slot = self._guard.sample if self._guard is not None else None
        expiry = self._expire.last_run if self._expire is not None else None
        seconds = self._settings.health_interval.total_seconds()
        self._status.publish(
            make_snapshot(health, now, interval_seconds=seconds, process=view, slot=slot, expiry=expiry)
        )

    def _session(self) -> Session:
        return Session.connect(self._conninfo, application_name=f"{self._settings.application_name}-sql")

    def _release(self, seconds: float) -> None:
        # Best effort within the time to stop: a lease that is not given back grows stale by itself, and until then the
        # next process is a stranger.
        try:
            self._lease.release()
        except PgbackupError as exc:
            _log.warning("the lease could not be given back: %s", exc)
