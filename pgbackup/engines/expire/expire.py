"""Expiry: look, plan, look again, and remove what the plan says, in an order that any crash leaves whole.

A backup's seal goes first, in a call of its own, then what lay under it; WAL goes only when all seals are gone, history
files and time marks last. A seal that the store keeps (an object lock) keeps its backup and the WAL that it needs.
Everything may be repeated: the record of what is to go is written first, so the next expiry finishes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.lsn import SegmentName
from pgbackup.core.removed_wal import RemovedWal
from pgbackup.core.retention import ExpiryPlan, RetentionPolicy, UnderWay, plan_expiry
from pgbackup.core.stop import StopSignal
from pgbackup.core.verification_verdict import still_damaged
from pgbackup.count_text import counted, is_or_are
from pgbackup.engines.backup.intent import store_clock
from pgbackup.engines.expire import objects
from pgbackup.engines.expire.objects import ExpiryStopped, Removed, Remover
from pgbackup.errors import BackupError, CorruptObject, StoreUnavailable
from pgbackup.repository import keys
from pgbackup.repository.backup_objects import with_missing_objects
from pgbackup.repository.catalog_reader import read_catalog
from pgbackup.repository.codec import Codec
from pgbackup.repository.expiry_record import ExpiryRecord, last_expiry, read_record
from pgbackup.repository.verification_note import must_read_verification
from pgbackup.storage.base import ObjectStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExpiryRequest:
    """``may_run`` is asked before each batch of deletions: whether this process still holds the lease."""

    store: ObjectStore
    codec: Codec
    policy: RetentionPolicy
    tz: tzinfo
    stop: StopSignal
    may_run: Callable[[], bool]
    accept_missing: bool = False
    """Backups that vanished since the last expiry were removed on purpose."""
    remove_by_tool: Callable[[ExpiryPlan, Catalog], bool] | None = None
    """Removes what a plan removes by another program, once the seals are gone; whatever it leaves goes after it."""


@dataclass(frozen=True)
class Look:
    """What the repository showed at ``now`` (the store's clock), and the plan that follows from it."""

    now: datetime
    catalog: Catalog
    record: ExpiryRecord | None
    claimed: frozenset[UnderWay]
    plan: ExpiryPlan
    damaged: frozenset[str] = frozenset()
    """Backups that a verification found damaged, now or by the time of an earlier expiry."""

    @property
    def unfinished(self) -> list[str]:
        """Backups whose seal an earlier expiry removed, and of which objects may be left."""
        if self.record is None or self.plan.refusal:
            return []
        size = self.catalog.segment_bytes
        there = {b.name for b in self.catalog.backups}
        there |= {_backup_of(each, size) for each in self.claimed}
        return sorted(self.record.removing - there)


@dataclass(frozen=True)
class ExpiryReport:
    """What one expiry did. ``stopped`` says why it ended early; what is left goes with the next one."""

    plan: ExpiryPlan
    backups: tuple[str, ...] = ()
    removed: Removed = field(default_factory=Removed)
    stopped: str = ""


def look(request: ExpiryRequest, now: datetime | None = None) -> Look:
    """Read the repository and plan. Writes nothing. Raises what the store raises, and CorruptObject for a record that
    cannot be read: this one's, or that of verifications."""
    moment = now or store_clock(request.store)
    record = _read_record(request)
    # Before the catalog: a backup that is sealed in between is then in both, never in neither.
    parsed = (keys.parse_intent(info.key) for info in request.store.list(keys.INTENTS))
    claimed = frozenset(UnderWay(*each) for each in parsed if each is not None)
    catalog = with_missing_objects(request.store, read_catalog(request.store, request.codec))
    damaged = still_damaged(must_read_verification(request.store), record.damaged if record is not None else ())
    # A seal speaks for itself: where nothing can be deleted the intents of sealed backups stay for ever.
    sealed = {backup.name for backup in catalog.backups}
    claimed = frozenset(each for each in claimed if _backup_of(each, catalog.segment_bytes) not in sealed)
    previous = record.listing if record is not None else None
    if previous is not None and request.accept_missing:
        previous = replace(previous, backups=frozenset())
    plan = plan_expiry(catalog, request.policy, moment, request.tz, previous, under_way=claimed, damaged=damaged)
    return Look(moment, catalog, record, claimed, plan, damaged)


def _backup_of(claim: UnderWay, segment_bytes: int) -> str:
    return f"base_{SegmentName.containing(claim.timeline, claim.start_lsn, segment_bytes)}"


def measure(request: ExpiryRequest, seen: Look) -> Removed:
    """How many objects and bytes the plan would remove, by listing them."""
    found = Removed()
    for name in [*seen.unfinished, *(backup.name for backup in seen.plan.removed)]:
        for info in objects.sentinel_objects(request.store, name):
            _count(found, info.size_bytes)
        for info in objects.folder_objects(request.store, name):
            _count(found, info.size_bytes)
    for each in seen.plan.wal:
        for info in objects.wal_objects(request.store, each, seen.catalog.segment_bytes):
            _count(found, info.size_bytes)
    return found


def run_expiry(request: ExpiryRequest, shown: Look | None = None) -> ExpiryReport:
    """Remove what the plan says; ``shown`` is the look that the operator saw. Raises what the store raises.

    Right before the first deletion everything is read and planned anew, for the same moment; when that plan is another
    one, nothing is removed. A refusal is in the report's plan.
    """
    first = shown or look(request)
    if first.plan.refusal:
        _log.warning("expiry removes nothing: %s", first.plan.refusal)
        remember_damaged(request, first)
        return ExpiryReport(first.plan)
    seen = look(request, first.now)
    if not seen.plan.same_removal(first.plan):
        return ExpiryReport(seen.plan, stopped="the repository has changed since the plan was made")
    return _Execution(request, seen).run()


def remember_damaged(request: ExpiryRequest, seen: Look) -> None:
    """Write down what was found damaged where expiry refuses, and writes nothing else: that may be why it does.
    Raises what ``may_run`` raises."""
    record = seen.record or ExpiryRecord(last_expiry(None, seen.catalog.backups, seen.now), None, frozenset())
    damaged = _damaged_there(seen)
    if damaged == record.damaged or request.stop.is_set() or not request.may_run():
        return
    if _read_record(request) != seen.record:
        # Another expiry has written since: what is to go by it must not be forgotten.
        return
    try:
        request.store.put(keys.EXPIRY, replace(record, damaged=damaged).encode())
    except StoreUnavailable as exc:
        _log.warning("which backups were found damaged cannot be written down: %s", exc)


def _damaged_there(seen: Look) -> frozenset[str]:
    return seen.damaged & {backup.name for backup in seen.catalog.backups}


def _read_record(request: ExpiryRequest) -> ExpiryRecord | None:
    try:
        return read_record(request.store)
    except CorruptObject as exc:
        if request.accept_missing:
            return None
        hint = "See what happened to the prefix; pgbackup expire --apply --accept-missing writes the record anew."
        raise CorruptObject(keys.EXPIRY, exc.detail, hint=hint) from exc


def _count(found: Removed, size_bytes: int) -> None:
    found.objects += 1
    found.bytes += size_bytes


class _Execution:
    """Carries one plan out."""

    def __init__(self, request: ExpiryRequest, seen: Look) -> None:
        self._request = request
        self._store = request.store
        self._seen = seen
        self._plan = seen.plan
        self._remover = Remover(request.store, request.stop, request.may_run)
        self._unsealed: list[str] = []
        """Backups whose seal is gone."""
        self._pinned: frozenset[str] = frozenset()
        """Backups whose seal the store keeps."""
        self._unfinished = set(seen.unfinished)

    def run(self) -> ExpiryReport:
        stopped = ""
        try:
            self._remover.ask()
            self._begin()
            self._remove_backups()
            self._remove_wal()
            self._write_record(self._unfinished, self._seen.now)
        except ExpiryStopped as reason:
            stopped = str(reason)
        removed = self._remover.removed
        _log.info(
            "expiry removed %s, %s, %d bytes%s",
            counted(len(self._unsealed), "backup"), counted(removed.objects, "object"), removed.bytes,
            f"; it ended early: {stopped}" if stopped else "",
        )  # fmt: skip
        if removed.retained:
            _log.info("the store keeps %s, first %s", counted(removed.retained, "object"), removed.first_retained)
        return ExpiryReport(self._seen.plan, tuple(self._unsealed), removed, stopped)

    def _begin(self) -> None:
        """Write down what is to go, before it goes.

        A store that is full takes not even that. Then one backup goes first: should this end right after its seal, the
        next expiry asks where it went, which is better than never to make room.
        """
        # One that breaks off in the middle is not done.
        last = last_expiry(self._seen.record, self._seen.catalog.backups, self._seen.now)
        going = self._unfinished | {b.name for b in self._plan.removed}
        try:
            self._write_record(going, last)
        except StoreUnavailable as full:
            if self._plan.is_empty and not self._unfinished:
                raise
            _log.warning("the record of what is to go cannot be written, trying to make room first: %s", full)
            self._remove_unfinished()
            if self._unseal(self._plan.removed[:1]):
                self._remove_folder(self._unsealed[0])
            if self._plan.removed:
                self._write_record(going, last)

    def _remove_backups(self) -> None:
        self._remove_unfinished()
        self._unseal(self._seen.plan.removed)
        self._remove_by_tool()
        for name in self._unsealed:
            self._remove_folder(name)

    def _remove_unfinished(self) -> None:
        for name in self._seen.unfinished:
            # Sealed since the look: another backup of that name.
            if not objects.sentinel_objects(self._store, name):
                self._remove_folder(name)

    def _unseal(self, backups: Iterable[Backup]) -> bool:
        """Remove the seals of those that still are to go. Returns whether any went."""
        before = len(self._unsealed)
        for backup in backups:
            if backup not in self._plan.removed or backup.name in self._unsealed:
                continue
            if self._remover.remove(objects.sentinel_objects(self._store, backup.name)):
                self._pinned |= {backup.name}
                self._plan = self._plan_with(self._pinned)
                continue
            self._unsealed.append(backup.name)
            self._unfinished.add(backup.name)
        return len(self._unsealed) > before

    def _remove_by_tool(self) -> None:
        """What the tool removes is what the listing no longer shows; it must not have removed anything else."""
        if self._request.remove_by_tool is None or not self._unsealed:
            return
        self._remover.ask()
        before = self._planned()
        if not self._request.remove_by_tool(self._plan, self._seen.catalog):
            return
        after = self._planned()
        self._remover.removed.objects += before.objects - after.objects
        self._remover.removed.bytes += before.bytes - after.bytes
        there = {backup.name for backup in read_catalog(self._store, self._request.codec, with_marks=False).backups}
        lost = sorted(v.backup.name for v in self._plan.backups if v.keep and v.backup.name not in there)
        if lost:
            raise BackupError(
                f"the tool has removed backup {lost[0]}, which was to stay",
                detail=f"of those that the plan keeps {counted(len(lost), 'backup')} {is_or_are(len(lost))} gone",
                hint="Set PGBACKUP_EXPIRE_SCHEDULE=off, and find out what the tool was told by its own settings.",
            )

    def _planned(self) -> Removed:
        """What is there now of the folders and the WAL that the plan removes."""
        found = Removed()
        for name in self._unsealed:
            for info in objects.folder_objects(self._store, name):
                _count(found, info.size_bytes)
        for each in self._plan.wal:
            for info in objects.wal_objects(self._store, each, self._seen.catalog.segment_bytes):
                _count(found, info.size_bytes)
        return found

    def _remove_folder(self, name: str) -> None:
        self._unfinished.add(name)
        if not self._remover.remove(objects.folder_objects(self._store, name)):
            self._unfinished.discard(name)

    def _plan_with(self, pinned: frozenset[str]) -> ExpiryPlan:
        seen, request = self._seen, self._request
        return plan_expiry(
            seen.catalog,
            request.policy,
            seen.now,
            request.tz,
            under_way=seen.claimed,
            pinned=pinned,
            damaged=seen.damaged,
        )

    def _remove_wal(self) -> None:
        for each in self._plan.wal:
            self._remover.remove(objects.wal_objects(self._store, each, self._seen.catalog.segment_bytes))
        for timeline in self._plan.histories:
            self._remover.remove(objects.history_objects(self._store, timeline))
        self._remover.remove(objects.mark_objects(self._store, self._plan.marks))

    def _gone(self, there: frozenset[str]) -> tuple[str, ...]:
        """What nobody need look for any more, though it be later that somebody compares with what there was."""
        last = self._seen.record
        if last is None:
            return tuple(self._unsealed)
        accepted = last.backups if self._request.accept_missing else frozenset()
        return last.gone_after([*sorted(accepted - there), *self._unsealed], there)

    def _write_record(self, removing: set[str], when: datetime) -> None:
        catalog, last = self._seen.catalog, self._seen.record
        there = frozenset(b.name for b in catalog.backups if b.name not in self._unsealed)
        removed = self._remover.removed
        what: dict[str, object] = dict(last.removed) if last is not None else {}
        if removed.objects:
            what = {
                "when": self._seen.now.isoformat(),
                "backups": self._unsealed,
                "wal": [[each.timeline, each.oldest, each.newest] for each in self._plan.wal],
                "objects": removed.objects,
                "bytes": removed.bytes,
                "retained": removed.retained,
            }
        removed_wal = last.removed_wal if last is not None else RemovedWal()
        record = ExpiryRecord(
            when, catalog.system_identifier, there, frozenset(removing), what, self._gone(there | removing),
            removed_wal.and_also((each.timeline, each.begin, each.end) for each in self._plan.wal),
            _damaged_there(self._seen) & there,
        )  # fmt: skip
        self._store.put(keys.EXPIRY, record.encode())
