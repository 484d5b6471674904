"""One base backup, from the first look at the server to the seal.

Order (each step leaves either nothing, or something that the next run recognises): server facts, the prefix claimed
for this cluster, leftovers removed, BASE_BACKUP started, its name claimed by an intent, the copy, what the seal needs
into the intent, WAL to the stop LSN in the repository, the folder compared, metadata.json, sentinel, intent removed.

A failure up to the complete copy removes everything of this attempt. After it the copy stays, with its intent, and
the next run seals it (``resume_seals``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pgbackup import __version__
from pgbackup.core.lsn import Lsn
from pgbackup.engines.backup.copying import BackupCopy, Copied, describe_damage
from pgbackup.engines.backup.intent import OwnIntent
from pgbackup.engines.backup.leftovers import clean_leftovers, remove_backup_objects
from pgbackup.engines.backup.name import claim_name, sealed_twin
from pgbackup.engines.backup.passing_failure import passing_failure
from pgbackup.engines.backup.seal import SealPlan, resume_seals, write_seal
from pgbackup.engines.base import ProgressSink, StopSignal
from pgbackup.engines.wal.coverage import WalCoverage
from pgbackup.errors import PgbackupError, StorageError, WrongCluster
from pgbackup.postgres.base_backup_stream import BackupStart, BaseBackupStream
from pgbackup.postgres.base_backup_wire import BaseBackupOptions
from pgbackup.postgres.recorded_settings import RecordedSettings, read_settings
from pgbackup.postgres.replication import ReplicationConnection
from pgbackup.postgres.session import ServerFacts, Session
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import claim_prefix
from pgbackup.repository.codec import Codec
from pgbackup.repository.documents import BackupDocuments, BackupExtras, ClusterDocument
from pgbackup.storage.base import ObjectStore

__all__ = ["BackupRequest", "BackupResult", "clean_leftovers", "resume_seals", "take_backup"]

DEFAULT_LABEL = "pgbackup"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackupRequest:
    """What to back up, where to, and how. ``max_rate`` in bytes per second; ``wal`` sees to the WAL and is ready."""

    store: ObjectStore
    codec: Codec
    conninfo: str
    application_name: str
    wal: WalCoverage
    hostname: str
    label: str = ""
    permanent: bool = False
    part_bytes: int = 256 << 20
    upload_concurrency: int = 4
    max_rate: int | None = None
    page_checksums: Literal["mark", "fail"] = "mark"


@dataclass(frozen=True)
class BackupResult:
    """A sealed backup. ``new`` is False when the server has written nothing since ``name`` was taken."""

    name: str
    timeline: int
    start_lsn: Lsn
    stop_lsn: Lsn
    started: datetime
    finished: datetime
    raw_bytes: int
    stored_bytes: int
    files: int | None
    corrupt_files: dict[str, list[int]]
    wal_tail: bool
    permanent: bool
    label: str
    new: bool = True

    @property
    def seconds(self) -> float:
        return (self.finished - self.started).total_seconds()


@dataclass(frozen=True)
class _Server:
    """The server at the start; ``clock_ahead``: its clock less ours, so that every time is the server's."""

    facts: ServerFacts
    recorded: RecordedSettings
    clock_ahead: timedelta

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + self.clock_ahead


def take_backup(request: BackupRequest, progress: ProgressSink, stop: StopSignal) -> BackupResult:
    """Take one base backup and seal it. Raises BackupError (``retryable`` when the next try may do better),
    PostgresError, StorageError, and WrongCluster or ConfigError when the prefix is not ours."""
    server = _look_at_server(request)
    facts = server.facts
    cluster = ClusterDocument(facts.system_identifier, facts.segment_bytes, facts.version_num)
    claim_prefix(request.store, cluster, request.codec)
    _tidy_up(request, stop)
    connection = ReplicationConnection.connect(request.conninfo, application_name=request.application_name)
    try:
        if connection.identify().system_identifier != facts.system_identifier:
            raise WrongCluster(
                "two connections with the same settings reached two clusters",
                hint="Name one server in PGHOST, or servers of one cluster only.",
            )
        backup = _Backup(request, server, connection, progress, stop)
        return backup.run()
    finally:
        connection.close()


def _look_at_server(request: BackupRequest) -> _Server:
    with Session.connect(request.conninfo, application_name=request.application_name) as session:
        clock: datetime = session.query("SELECT clock_timestamp()")[0][0]
        ahead = clock - datetime.now(UTC)
        return _Server(session.facts(), read_settings(session), ahead)


def _tidy_up(request: BackupRequest, stop: StopSignal) -> None:
    """What is left of earlier backups costs space, not safety: a failure here must not prevent the next backup."""
    try:
        resume_seals(request.store, request.hostname, stop, stalled_seconds=0)
        clean_leftovers(request.store, request.hostname)
    except StorageError as exc:
        _log.warning("leftovers of earlier backups could not be removed: %s", exc)


class _Backup:
    """One attempt, on a connection of its own."""

    def __init__(
        self,
        request: BackupRequest,
        server: _Server,
        connection: ReplicationConnection,
        progress: ProgressSink,
        stop: StopSignal,
    ) -> None:
        self._request = request
        self._server = server
        self._progress = progress
        self._stop = stop
        # With several hosts in the DSN this connection may have reached another one than the SQL session.
        self._standby = connection.show("in_hot_standby") == "on"
        options = BaseBackupOptions(request.label or DEFAULT_LABEL, request.max_rate)
        self._stream = BaseBackupStream(connection, options)
        self._started = server.now

    def run(self) -> BackupResult:
        """Start, claim the name, copy, seal."""
        start = self._stream.start(self._stop)
        facts, request = self._server.facts, self._request
        name = keys.backup_name(start.timeline, start.start_lsn, facts.segment_bytes)
        twin = sealed_twin(request.store, request.codec, name, start.start_lsn)
        if twin is not None:
            self._stream.cancel()
            return BackupResult(
                name, twin.timeline, twin.start_lsn, twin.stop_lsn, twin.started, twin.finished, twin.raw_bytes,
                twin.stored_bytes, None, {}, twin.wal_tail, twin.permanent, twin.label, new=False,
            )  # fmt: skip
        intent = claim_name(request.store, name, start, facts.segment_bytes, request.hostname)
        copied, plan = self._copy(start, name, intent)
        tail = self._seal(plan, intent)
        return self._result(plan, copied, wal_tail=tail)

    # -- the copy -------------------------------------------------------------------------------------------------

    def _copy(self, start: BackupStart, name: str, intent: OwnIntent) -> tuple[Copied, SealPlan]:
        """Copy, and put what the seal needs into the intent; after a failure nothing of it is left."""
        request = self._request
        copy = BackupCopy(
            request.store, request.codec, name, part_bytes=request.part_bytes,
            concurrency=request.upload_concurrency, progress=self._progress, stop=self._stop,
        )  # fmt: skip
        intent.under_way = lambda: copy.uploads.under_way
        intent.progress = lambda: copy.got_to
        self._progress.start(f"base backup {name}", start.estimated_bytes)
        try:
            request.wal.begin(start.timeline, start.start_lsn, self._server.facts.segment_bytes)
            copied = copy.run(self._stream, refuse_damaged_pages=request.page_checksums == "fail")
            if copied.end.timeline != start.timeline:
                raise passing_failure(
                    f"the server's timeline changed from {start.timeline} to {copied.end.timeline} during the backup"
                )
            plan = SealPlan(name, self._documents(start, copied), copied.objects)
            intent.update(uploads=[], seal=plan.document())
        except BaseException:
            self._stream.cancel()
            _give_up(request.store, name, intent, quiet=copy.close(), under_way=copy.uploads.under_way)
            raise
        finally:
            self._progress.finish()
        copy.close()
        return copied, plan

    def _documents(self, start: BackupStart, copied: Copied) -> BackupDocuments:
        request, facts, recorded = self._request, self._server.facts, self._server.recorded
        manifest = keys.manifest("", request.codec.extension).rpartition("/")[2]
        extras = BackupExtras(
            version=__version__,
            segment_bytes=facts.segment_bytes,
            label=request.label,
            standby=self._standby,
            manifest=manifest,
            corrupt_files=copied.end.damaged,
            settings=recorded.settings,
            config_files=recorded.config_files,
            tablespaces={str(space.oid): space.location for space in start.tablespaces},
        )
        return BackupDocuments(
            timeline=start.timeline,
            start_lsn=start.start_lsn,
            finish_lsn=copied.end.stop_lsn,
            pg_version=facts.version_num,
            system_identifier=facts.system_identifier,
            started=self._started,
            finished=self._server.now,
            hostname=request.hostname,
            data_directory=facts.data_directory,
            raw_bytes=copied.raw_bytes,
            stored_bytes=copied.stored_bytes,
            permanent=request.permanent,
            tablespaces=start.tablespaces,
            extras=extras,
        )

    # -- the seal -------------------------------------------------------------------------------------------------

    def _seal(self, plan: SealPlan, intent: OwnIntent) -> bool:
        """Wait for the WAL, then seal; returns whether a tail was needed. A failure leaves the copy to be sealed."""
        request, documents = self._request, plan.documents
        try:
            tail = request.wal.wait_for(
                documents.timeline, documents.finish_lsn, documents.extras.segment_bytes, self._stop,
                tail_counts=self._standby,
            )  # fmt: skip
            write_seal(request.store, plan, intent, wal_tail=tail)
        except BaseException:
            intent.leave()
            _log.warning("backup %s is copied but not sealed; the next run tries again", plan.backup)
            raise
        try:
            intent.remove()
        except StorageError as exc:
            intent.leave()
            _log.warning("the intent of backup %s could not be removed: %s", plan.backup, exc)
        return tail

    def _result(self, plan: SealPlan, copied: Copied, *, wal_tail: bool) -> BackupResult:
        documents = plan.documents
        if copied.end.damaged:
            _log.error("backup %s has damaged pages: %s", plan.backup, describe_damage(copied.end.damaged))
        _log.info("backup %s is sealed", plan.backup)
        return BackupResult(
            plan.backup, documents.timeline, documents.start_lsn, documents.finish_lsn, documents.started,
            documents.finished, documents.raw_bytes, documents.stored_bytes, copied.files, copied.end.damaged,
            wal_tail, documents.permanent, documents.extras.label,
        )  # fmt: skip


def _give_up(store: ObjectStore, name: str, intent: OwnIntent, *, quiet: bool, under_way: list[list[str]]) -> None:
    """Remove what a failed copy has stored. What cannot be removed now stays in the intent, for the next run."""
    try:
        intent.check()
        if quiet:
            remove_backup_objects(store, name, under_way)
            intent.remove()
            return
        _log.warning("uploads of backup %s are still under way; the next run removes what they leave", name)
    except PgbackupError as exc:
        _log.warning("the objects of backup %s could not be removed: %s", name, exc)
    intent.leave()
