"""The lease: which process runs scheduled backups, expiry and clean-up. Shipping WAL needs none.

One mutable object with a heartbeat, taken by conditional put. The heartbeat moves while WAL moves and before each
scheduled piece of work, never on an idle database. A lease that was given back, whose process is gone for certain, or
that has not moved for STALE_SECONDS, may be taken over; the holder finds out at its next conditional put.
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pgbackup.engines.presence.owner import Owner
from pgbackup.errors import CorruptObject, ObjectMissing, StoreUnavailable
from pgbackup.repository import keys
from pgbackup.repository.json_object import parse_object
from pgbackup.storage.base import ObjectStore

STALE_SECONDS = 180
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseDocument:
    """Who holds the lease; ``heartbeat`` is ISO 8601 with zone."""

    writer: str
    host: str
    system_identifier: int
    timeline: int
    heartbeat: str
    released: bool = False
    owner: dict[str, Any] | None = None
    format: int = 1


class Lease:
    """Our side of the lease. Thread-safe."""

    def __init__(self, store: ObjectStore, *, writer: str, host: str) -> None:
        self._store = store
        self._writer = writer
        self._host = host
        self._owner = Owner.new(host)
        self._lock = threading.Lock()
        self._given_back = False

    def read(self) -> tuple[LeaseDocument, str] | None:
        """The lease as stored and its etag, or None. Raises CorruptObject."""
        try:
            data, etag = self._store.get_with_etag(keys.LEASE)
        except ObjectMissing:
            return None
        try:
            fields = parse_object(keys.LEASE, data)
            return LeaseDocument(**{name: fields[name] for name in LeaseDocument.__slots__ if name in fields}), etag
        except TypeError as exc:
            raise CorruptObject(keys.LEASE, f"not a lease ({exc})") from exc

    def is_alive(self, lease: LeaseDocument) -> bool:
        """Whether the holder has shown itself lately, by the store's clock where it has one.

        A holder that was a process of this machine and is gone for certain need not be waited for.
        """
        return self._shown_within(lease, timedelta(seconds=STALE_SECONDS))

    def holder(self, within: timedelta) -> LeaseDocument | None:
        """Who holds the lease and has shown itself within that time, or None."""
        stored = self.read()
        return stored[0] if stored is not None and self._shown_within(stored[0], within) else None

    def _shown_within(self, lease: LeaseDocument, within: timedelta) -> bool:
        if lease.released or _is_gone(lease):
            return False
        now = self._store.clock() or datetime.now(UTC)
        info = self._store.head(keys.LEASE)
        beat = info.modified if info is not None else datetime.fromisoformat(lease.heartbeat)
        return now - beat < within

    def is_ours(self, lease: LeaseDocument) -> bool:
        return lease.writer == self._writer

    def acquire(self, system_identifier: int, timeline: int) -> bool:
        """Take or renew the lease. Returns whether it is ours now."""
        with self._lock:
            if self._given_back:
                return False
            document = self._document(system_identifier, timeline)
            try:
                stored = self.read()
            except CorruptObject as exc:
                _log.warning("%s", exc)
                return self._take_damaged(document)
            if stored is None:
                return self._store.put_if_absent(keys.LEASE, document)
            lease, etag = stored
            if not self.is_ours(lease) and self.is_alive(lease):
                return False
            try:
                return self._store.replace(keys.LEASE, document, etag)
            except StoreUnavailable:
                # A store that is full takes no heartbeat, and only expiry makes room: ours stays ours.
                if self.is_ours(lease):
                    return True
                raise

    def _take_damaged(self, document: bytes) -> bool:
        """A lease that cannot be read is anybody's once it has not moved for as long as a dead one: who holds it writes
        it anew by then."""
        etag = self._store.get_with_etag(keys.LEASE)[1]
        info = self._store.head(keys.LEASE)
        now = self._store.clock() or datetime.now(UTC)
        if info is None or now - info.modified < timedelta(seconds=STALE_SECONDS):
            return False
        return self._store.replace(keys.LEASE, document, etag)

    def release(self) -> None:
        """Give the lease back, if it is ours, for good: a heartbeat that comes late must not take it again."""
        with self._lock:
            self._given_back = True
            stored = self.read()
            if stored is not None and self.is_ours(stored[0]):
                lease, etag = stored
                document = self._document(lease.system_identifier, lease.timeline, released=True)
                self._store.replace(keys.LEASE, document, etag)

    def _document(self, system_identifier: int, timeline: int, *, released: bool = False) -> bytes:
        beat = datetime.now(UTC).isoformat()
        document = LeaseDocument(
            self._writer, self._host, system_identifier, timeline, beat, released, self._owner.document()
        )
        return json.dumps(asdict(document)).encode()


def _is_gone(lease: LeaseDocument) -> bool:
    try:
        return lease.owner is not None and Owner.parse(lease.owner).is_gone() is True
    except (ValueError, TypeError, KeyError):
        return False
