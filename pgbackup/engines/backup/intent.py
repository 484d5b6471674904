"""The intent of a base backup: who is making the backup of that name, since when, and what to clean up or to seal.

One object per name, put if absent, with a heartbeat that is a conditional put: two backups that would share a name
cannot mix, and one whose intent was taken over finds out before it seals. When the copy is complete, everything that
the seal needs goes into the intent, so that a restart seals instead of copying again.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pgbackup.core.health_facts import BackupUnderWay
from pgbackup.engines.presence.owner import Owner
from pgbackup.errors import BackupError, CorruptObject, ObjectMissing, PgbackupError
from pgbackup.repository import keys
from pgbackup.repository.json_object import parse_object
from pgbackup.storage.base import ObjectInfo, ObjectStore
from pgbackup.storage.tidying import tidy

HEARTBEAT_SECONDS = 30.0
SILENT_AFTER = timedelta(seconds=180)
STALE_AFTER = timedelta(hours=24)
_NAME = re.compile(r"^base_[0-9A-F]{24}$")
_log = logging.getLogger(__name__)

Life = Literal["alive", "silent", "abandoned"]
"""``silent``: it does not beat, but may be another machine's that cannot reach the store; hands off for a day."""


@dataclass(frozen=True)
class Intent:
    """``uploads``: key and id of multipart uploads under way. ``seal``: what the seal needs, once the copy is there.

    ``advanced``: when the copy last got on, ``beat``: when the note was written, both by its writer's clock; None where
    the note does not say.
    """

    backup: str
    owner: Owner
    timeline: int
    start_lsn: str
    uploads: list[list[str]] = field(default_factory=list)
    seal: dict[str, Any] | None = None
    advanced: datetime | None = None
    beat: datetime | None = None

    def encode(self) -> bytes:
        """The document as stored; its time changes with every heartbeat, and with it the etag."""
        now = datetime.now(UTC)
        document = {
            "format": 1,
            "backup": self.backup,
            "owner": self.owner.document(),
            "timeline": self.timeline,
            "start_lsn": self.start_lsn,
            "heartbeat": now.isoformat(),
            "advanced": (self.advanced or now).isoformat(),
            "uploads": self.uploads,
            "seal": self.seal,
        }
        return json.dumps(document).encode()

    @classmethod
    def decode(cls, key: str, data: bytes) -> Intent:
        """Raises CorruptObject."""
        try:
            fields = parse_object(key, data)
            seal = fields["seal"]
            if not _NAME.match(fields["backup"]) or not isinstance(seal, dict | None):
                raise ValueError("a field is not what it should be")
            uploads = [[str(upload_key), str(upload_id)] for upload_key, upload_id in fields["uploads"]]
            owner = Owner.parse(fields["owner"])
            return cls(
                fields["backup"], owner, int(fields["timeline"]), str(fields["start_lsn"]), uploads, seal,
                _moment(fields.get("advanced")), _moment(fields.get("heartbeat")),
            )  # fmt: skip
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise CorruptObject(key, f"not the intent of a backup ({exc})") from exc


@dataclass(frozen=True)
class StoredIntent:
    """An intent as it was found."""

    key: str
    intent: Intent
    etag: str
    modified: datetime

    def under_way(self, now: datetime) -> BackupUnderWay:
        """What health judges by, at ``now`` (the store's clock)."""
        silent, intent = max(now - self.modified, timedelta(0)), self.intent
        still = intent.beat - intent.advanced if intent.beat and intent.advanced else timedelta(0)
        return BackupUnderWay(intent.backup, silent, silent + max(still, timedelta(0)))

    def life(self, host: str, now: datetime) -> Life:
        """What ``host`` may conclude at ``now`` (the store's clock)."""
        age = now - self.modified
        gone = self.intent.owner.is_gone()
        if gone is True or age > STALE_AFTER:
            return "abandoned"
        if gone is False or age < SILENT_AFTER:
            return "alive"
        return "abandoned" if self.intent.owner.host == host else "silent"


def read_intents(store: ObjectStore) -> Iterator[StoredIntent]:
    """Every intent; one that cannot be read is logged and left alone."""
    for info in list(store.list(keys.INTENTS)):
        try:
            found = _read(store, info)
        except CorruptObject as exc:
            _log.warning("%s", exc)
            continue
        if found is not None:
            yield found


def read_intent(store: ObjectStore, key: str) -> StoredIntent | None:
    """The intent of one name, or None. Raises CorruptObject."""
    info = store.head(key)
    return None if info is None else _read(store, info)


def _read(store: ObjectStore, info: ObjectInfo) -> StoredIntent | None:
    try:
        data, etag = store.get_with_etag(info.key)
    except ObjectMissing:
        return None
    return StoredIntent(info.key, Intent.decode(info.key, data), etag, info.modified)


def _moment(text: object) -> datetime | None:
    """Raises ValueError or TypeError; None for what is not there."""
    moment = None if text is None else datetime.fromisoformat(str(text))
    if moment is not None and moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment


def store_clock(store: ObjectStore) -> datetime:
    """The time by which ages are judged: the store's, where it has one."""
    return store.clock() or datetime.now(UTC)


class OwnIntent:
    """An intent that is ours, with its heartbeat in a thread. ``leave`` or ``remove`` ends it."""

    def __init__(self, store: ObjectStore, key: str, intent: Intent) -> None:
        self._store = store
        self._key = key
        self._intent = intent
        self.under_way: Callable[[], list[list[str]]] | None = None
        """Asked at every heartbeat for the multipart uploads under way."""
        self.progress: Callable[[], object] | None = None
        """Asked at every heartbeat for anything that differs when the copy has got on."""
        self._progress: object = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="backup-intent", daemon=True)
        self._thread.start()

    @classmethod
    def claim(cls, store: ObjectStore, key: str, intent: Intent) -> OwnIntent | None:
        """Claim the name, or None when another intent is there."""
        return cls(store, key, intent) if store.put_if_absent(key, intent.encode()) else None

    @classmethod
    def take_over(cls, store: ObjectStore, found: StoredIntent, owner: Owner) -> OwnIntent | None:
        """Make a found intent ours, or None when it has changed meanwhile."""
        intent = replace(found.intent, owner=owner, advanced=datetime.now(UTC))
        return cls(store, found.key, intent) if store.replace(found.key, intent.encode(), found.etag) else None

    @property
    def intent(self) -> Intent:
        return self._intent

    def check(self) -> None:
        """Raise BackupError when somebody else has taken the intent over."""
        if self._lost.is_set():
            raise BackupError(
                f"another process has taken over the backup {self._intent.backup}",
                detail="this one did not show itself for too long",
                hint="Look at the connection to the store; the next backup starts anew.",
            )

    def update(
        self,
        *,
        uploads: list[list[str]] | None = None,
        seal: dict[str, Any] | None = None,
        advanced: datetime | None = None,
    ) -> None:
        """Store the intent, changed or as it is; ``advanced`` says that the work has got on, and when (now, where it
        has got to the seal). Raises BackupError when it is not ours any more."""
        with self._lock:
            self.check()
            intent = replace(
                self._intent,
                uploads=self._intent.uploads if uploads is None else uploads,
                seal=self._intent.seal if seal is None else seal,
                advanced=advanced or (self._intent.advanced if seal is None else datetime.now(UTC)),
            )
            try:
                data, etag = self._store.get_with_etag(self._key)
                ours = Intent.decode(self._key, data).owner == self._intent.owner
            except (ObjectMissing, CorruptObject):
                ours = False
            if not ours or not self._store.replace(self._key, intent.encode(), etag):
                self._lost.set()
                self.check()
            self._intent = intent

    def leave(self) -> None:
        """Stop the heartbeat; the intent stays for whoever seals or cleans up."""
        self._ended.set()
        self._thread.join(1)
        self._intent.owner.retire()

    def remove(self) -> None:
        """The backup is sealed, or nothing of it is left. Raises what the store raises."""
        self._ended.set()
        with self._lock:
            if not self._lost.is_set():
                tidy(self._store, [self._key])
        self.leave()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                uploads = self.under_way() if self.under_way is not None else None
                self.update(uploads=uploads, advanced=self._advanced())
            except BackupError:
                return
            except PgbackupError as exc:
                _log.warning("the heartbeat of backup %s could not be stored: %s", self._intent.backup, exc)

    def _advanced(self) -> datetime | None:
        """Now, when the copy has got on since the last time; otherwise what was said then holds."""
        before, self._progress = self._progress, self.progress() if self.progress is not None else None
        return datetime.now(UTC) if self._progress != before or self._intent.advanced is None else None
