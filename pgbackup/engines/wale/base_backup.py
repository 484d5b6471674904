"""One base backup by the tool: asked first whether it can work, watched while it runs, believed only by the listing.

The tool names the backup, writes its objects and its seal. So a run counts when a sentinel is listed that was not
there before; and the backup is done when the WAL to its stop LSN is stored too (invariant 3). Progress is what can
honestly be shown: the bytes that the bucket lists of it so far, of an unknown total.

What a failed run leaves has no sentinel, so it is no backup; whose it is cannot be proven until nothing changed in it
for a day, then the next base backup removes it. WAL-E leaves the server in exclusive backup mode when it is killed:
that is ended here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from pgbackup.core.backup import Backup
from pgbackup.core.lsn import Lsn
from pgbackup.engines.backup.base_backup import BackupResult
from pgbackup.engines.backup.leftovers import clean_leftovers
from pgbackup.engines.base import ProgressSink, StopSignal
from pgbackup.engines.port import BackupOrder
from pgbackup.engines.wale.diagnosis import IN_BACKUP_MODE, WAL_E_TOO_OLD
from pgbackup.engines.wale.dialects import NO_DATA_HINT, PushOptions
from pgbackup.engines.wale.driver import ToolDriver
from pgbackup.engines.wale.stall import StallWatch
from pgbackup.errors import BackupError, PgbackupError, StorageError, ToolError, WrongCluster
from pgbackup.postgres.session import ServerFacts, Session
from pgbackup.postgres.visible_directory import visible_directory
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import claim_prefix, read_catalog
from pgbackup.repository.codec import Codec
from pgbackup.repository.documents import ClusterDocument
from pgbackup.storage.base import ObjectStore

LONGEST_SECONDS = 7 * 24 * 3600.0
_LISTED_SECONDS = 5.0
_IN_BACKUP_MODE = "SELECT pg_is_in_backup()"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ToolBackup:
    """How base backups are taken: ``push`` without the data directory, which is looked for each time; ``settle``
    makes an object durable where its listing does not prove it."""

    driver: ToolDriver
    codec: Codec
    conninfo: str
    application_name: str
    hostname: str
    data_directory: str
    push: PushOptions
    settle: Callable[[str], None] | None = None


def take_tool_backup(how: ToolBackup, order: BackupOrder, progress: ProgressSink, stop: StopSignal) -> BackupResult:
    """Take one base backup. Raises ToolError, BackupError, PostgresError, StorageError, WrongCluster, ConfigError."""
    facts = _look_at_server(how)
    refuse_what_cannot_work(how, facts)
    options = _options(how, order, facts)
    words = how.driver.dialect.backup_push(options)
    how.driver.require_programs()
    how.driver.require_key()
    cluster = ClusterDocument(facts.system_identifier, facts.segment_bytes, facts.version_num)
    claim_prefix(order.store, cluster, how.codec)
    with suppress(StorageError):
        clean_leftovers(order.store, how.hostname)
    before = _sentinels(order.store)
    order.wal.begin(facts.timeline, facts.flush_lsn, facts.segment_bytes)
    begin = time.monotonic()
    _push(how, order, words, facts, progress, stop)
    seconds = time.monotonic() - begin
    backup = _new_backup(how, order.store, before, facts)
    _settle(how, order.store, backup)
    order.wal.wait_for(backup.timeline, backup.stop_lsn, facts.segment_bytes, stop, tail_counts=False)
    _log.info("backup %s is complete", backup.name)
    return _result(backup, order, seconds)


def refuse_what_cannot_work(how: ToolBackup, facts: ServerFacts) -> None:
    """What is known to fail is said before anything starts. Raises ToolError."""
    dialect = how.driver.dialect
    if dialect.newest_major is not None and facts.major > dialect.newest_major:
        raise ToolError(
            f"{dialect.name} cannot take base backups of PostgreSQL {facts.major}",
            detail=f"{dialect.newest_major} is the last version that it can",
            hint=WAL_E_TOO_OLD,
        )
    if not dialect.remote_backups and facts.in_recovery:
        raise ToolError(
            f"{dialect.name} cannot take base backups of a standby",
            hint="Let it back up the primary, or use the native engine, which can do both.",
        )


def _look_at_server(how: ToolBackup) -> ServerFacts:
    with Session.connect(how.conninfo, application_name=how.application_name) as session:
        facts = session.facts()
        if facts.major <= 14 and not how.driver.dialect.remote_backups and session.query(_IN_BACKUP_MODE)[0][0]:
            raise ToolError(
                "the server is in exclusive backup mode already",
                detail="another WAL-E may be taking a backup, or was killed while it did",
                hint="When none runs: SELECT pg_stop_backup() as a superuser; then start the backup again.",
            )
        return facts


def _options(how: ToolBackup, order: BackupOrder, facts: ServerFacts) -> PushOptions:
    directory = visible_directory(how.data_directory, facts)
    if directory is None and not how.driver.dialect.remote_backups:
        raise ToolError(
            f"{how.driver.dialect.name} has to read the server's data directory, which is not visible here",
            detail=f"the server says that it is {facts.data_directory or 'unknown'}",
            hint=NO_DATA_HINT,
        )
    return replace(
        how.push,
        data_directory=directory,
        label=order.label,
        permanent=order.permanent,
        max_rate=order.max_rate,
    )


def _push(
    how: ToolBackup, order: BackupOrder, words: list[str], facts: ServerFacts, progress: ProgressSink, stop: StopSignal
) -> None:
    name = how.driver.dialect.name
    watch = _Watch(order.store, progress)
    stall = StallWatch(
        watch.seen, lambda why: _stands_still(f"{name} backup-push printed and stored nothing: it {why}")
    )
    progress.start(f"base backup by {name}, stored so far", None)
    env = {"WALG_PG_WAL_SIZE": str(max(facts.segment_bytes >> 20, 1))}
    if order.max_rate is not None:
        # WAL-G has no option for it, as WAL-E has.
        env["WALG_DISK_RATE_LIMIT"] = str(order.max_rate)
    try:
        how.driver.with_env(**env).call(words, timeout_seconds=LONGEST_SECONDS, stop=stop, watch=stall.look)
    except BaseException as exc:
        if not _is_in_anothers_backup(exc):
            _leave_backup_mode(how, facts)
        raise
    finally:
        watch.show()
        progress.finish()


def _stands_still(text: str) -> BackupError:
    error = BackupError(
        text, hint="See whether the server answers and the store takes anything; it is tried again by itself."
    )
    error.retryable = True
    return error


def _is_in_anothers_backup(exc: BaseException) -> bool:
    """Whether the tool did not begin, because somebody else's exclusive backup had begun meanwhile."""
    return isinstance(exc, ToolError) and IN_BACKUP_MODE in exc.message


def _leave_backup_mode(how: ToolBackup, facts: ServerFacts) -> None:
    """An exclusive backup that was killed would keep the next one from starting, and its label the server."""
    if how.driver.dialect.remote_backups or facts.major > 14:
        return
    try:
        with Session.connect(how.conninfo, application_name=how.application_name) as session:
            if session.query(_IN_BACKUP_MODE)[0][0]:
                session.query("SELECT pg_stop_backup()")
                _log.warning("ended the exclusive backup mode that %s left", how.driver.dialect.name)
    except PgbackupError as exc:
        _log.error("the server may still be in exclusive backup mode (SELECT pg_stop_backup() ends it): %s", exc)


def leave_backup_mode_of(how: ToolBackup, ended: Sequence[Sequence[str]]) -> None:
    """``ended``: the words of commands of a killed pgbackup that were ended. A backup of our server among them leaves
    it in the mode in which no other backup begins; somebody else's backup is nobody's business."""
    pushed = {words[-1] for words in ended if "backup-push" in words}
    if not pushed or how.driver.dialect.remote_backups:
        return
    try:
        with Session.connect(how.conninfo, application_name=how.application_name) as session:
            facts = session.facts()
        if str(visible_directory(how.data_directory, facts)) in pushed:
            _leave_backup_mode(how, facts)
    except PgbackupError as exc:
        _log.error("the server may be in exclusive backup mode (SELECT pg_stop_backup() ends it): %s", exc)


class _Watch:
    """Shows what is stored of the backup under way."""

    def __init__(self, store: ObjectStore, progress: ProgressSink) -> None:
        self._store = store
        self._progress = progress
        self._known = _folders(store)
        self._shown = 0

    def seen(self) -> int:
        """Look, and return how much there is."""
        self.show()
        return self._shown

    def show(self) -> None:
        """Look now. A listing that fails is no reason to end a backup."""
        try:
            stored = self._stored()
        except StorageError as exc:
            _log.debug("progress cannot be shown: %s", exc)
            return
        if stored > self._shown:
            self._progress.advance(stored - self._shown)
            self._shown = stored

    def _stored(self) -> int:
        """Bytes in the folders that were not there before."""
        new = _folders(self._store) - self._known
        return sum(info.size_bytes for folder in new for info in self._store.list(folder))


def _folders(store: ObjectStore) -> frozenset[str]:
    return frozenset(store.list_level(keys.BASEBACKUPS)[1])


def _sentinels(store: ObjectStore) -> dict[str, object]:
    """Key of every sentinel -> what changes when it is written anew."""
    infos, _ = store.list_level(keys.BASEBACKUPS)
    return {i.key: (i.etag, i.modified) for i in infos if i.key.endswith(keys.SENTINEL_SUFFIX)}


def _new_backup(how: ToolBackup, store: ObjectStore, before: dict[str, object], facts: ServerFacts) -> Backup:
    """The backup that the listing shows and that was not there before. Raises ToolError when there is none."""
    name = how.driver.dialect.name
    deadline = time.monotonic() + _LISTED_SECONDS
    while True:
        found = {key for key, sign in _sentinels(store).items() if before.get(key) != sign}
        if found or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    if not found:
        raise ToolError(
            f"{name} said that the backup was pushed, and the repository does not list it",
            detail=f"{store.url} has no new {keys.SENTINEL_SUFFIX.lstrip('_')}",
            hint="See where the tool's own settings lead it. Nothing counts as backed up.",
        )
    catalog = read_catalog(store, how.codec, with_marks=False)
    new = [backup for backup in catalog.backups if keys.sentinel(backup.name) in found]
    backup = max(new, key=lambda backup: (backup.start_lsn, backup.finished), default=None)
    if backup is None or (not any(store.list(keys.tar_folder(backup.name)))):
        raise ToolError(f"{name} has sealed a backup without any data", detail=", ".join(sorted(found)))
    if backup.system_identifier not in (0, facts.system_identifier):
        raise WrongCluster(
            f"{name} has backed up another cluster than the one that WAL is streamed from",
            detail=f"backup {backup.name} is of {backup.system_identifier}, the server is {facts.system_identifier}",
            hint="See that the tool reaches the same server: PGBACKUP_DSN and PGBACKUP_PGDATA.",
        )
    if not backup.stop_lsn:
        raise BackupError(f"where backup {backup.name} ended is not known", detail=backup.problem)
    if backup.stop_lsn < facts.flush_lsn and not facts.in_recovery:
        raise BackupError(
            f"backup {backup.name} ended at {backup.stop_lsn}, before it began",
            detail=f"the server stood at {facts.flush_lsn}",
            hint="See that the tool reaches the same server: PGBACKUP_DSN and PGBACKUP_PGDATA.",
        )
    return backup


def _settle(how: ToolBackup, store: ObjectStore, backup: Backup) -> None:
    if how.settle is not None:
        for info in store.list(keys.backup_folder(backup.name)):
            how.settle(info.key)
        how.settle(keys.sentinel(backup.name))


def _result(backup: Backup, order: BackupOrder, seconds: float) -> BackupResult:
    """``seconds``: how long the tool worked, for WAL-E's backups, which do not say when they began."""
    started = min(backup.started, backup.finished - timedelta(seconds=seconds))
    stored = backup.stored_bytes or sum(i.size_bytes for i in order.store.list(keys.tar_folder(backup.name)))
    return BackupResult(
        backup.name, backup.timeline, backup.start_lsn, Lsn(backup.stop_lsn), started, backup.finished,
        backup.raw_bytes, stored, None, {}, False, order.permanent, order.label,
    )  # fmt: skip
