"""The fence around a timeline: of two sessions that ship the same one, at most one may confirm.

One small object for each timeline, overwritten by every session as it begins, before it lists what is stored. After a
session has made something durable, and before it confirms it, it reads the fence: with the mark of another session in
it nothing is confirmed, and the session begins again from what is stored by then.

So no two sessions confirm different bytes: the other one wrote its mark either before ours, and then finds ours at its
next look, and what it had confirmed was there for us to list; or after our look, and then what we confirm was there
for it to list. That needs no clock, only that a read and a listing see what was written before them. Each session has
a mark of its own, for a process may meet another server next time.

A mark replaces the one that was there, and nothing else: a request that was tried again, or given up, may be served
minutes later, and must not put back the mark of a session that was superseded since. A store that knows no such
conditions loses only that.
"""

from __future__ import annotations

import uuid

from pgbackup.errors import ObjectMissing, PgbackupError
from pgbackup.repository import keys
from pgbackup.storage.base import ObjectStore

_TRIES = 5


class Superseded(PgbackupError):
    """Another session ships this timeline, or shipped it meanwhile: receive again, and compare."""

    retryable = True


class Fence:
    """One session's side of the fence. Thread-safe."""

    def __init__(self, store: ObjectStore, timeline: int) -> None:
        self._store = store
        self._key = keys.fence(timeline)
        self._mark = uuid.uuid4().hex.encode()

    def put_up(self) -> None:
        """Write our mark. What is listed from now on is what every earlier session may have confirmed."""
        for _ in range(_TRIES):
            try:
                there, etag = self._store.get_with_etag(self._key)
            except ObjectMissing:
                done = self._store.put_if_absent(self._key, self._mark)
            else:
                done = there == self._mark or self._store.replace(self._key, self._mark, etag)
            if done:
                return
        self._store.put(self._key, self._mark)

    def check(self) -> None:
        """Call after something became durable, and before it is confirmed. Raises Superseded."""
        try:
            mark = self._store.get(self._key)
        except ObjectMissing as gone:
            raise Superseded(f"{self._key} was removed while WAL was shipped") from gone
        if mark != self._mark:
            raise Superseded("another session began to ship this timeline")
