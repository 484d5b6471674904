"""Who ships the WAL of a base backup: the `pgbackup run` that streams already, or the backup itself."""

from __future__ import annotations

import time
from typing import Protocol

from pgbackup.core.lsn import Lsn
from pgbackup.engines.base import StopSignal
from pgbackup.engines.wal.bucket_wal import BucketWal
from pgbackup.engines.wal.own_wal import OwnWal
from pgbackup.engines.wal.port import WalShipping
from pgbackup.engines.wal.shipping import NativeShipping
from pgbackup.postgres.session import Session
from pgbackup.repository.codec import Codec
from pgbackup.storage.base import ObjectStore

_LOOKS = 3
_OWN_CONCURRENCY = 2
_LOOK_SECONDS = 0.5


class WalCoverage(Protocol):
    """Sees to it that the WAL of a base backup gets into the repository."""

    def begin(self, timeline: int, start_lsn: Lsn, segment_bytes: int) -> None:
        """The backup starts at ``start_lsn`` of ``timeline``."""

    def wait_for(self, timeline: int, lsn: Lsn, segment_bytes: int, stop: StopSignal, *, tail_counts: bool) -> bool:
        """Wait until WAL to ``lsn`` (exclusive) is stored, in whole segments unless ``tail_counts`` and a tail is all
        there can be. Returns whether a tail was needed. Raises BackupError."""

    def close(self) -> None:
        """Give back what ``begin`` took."""


def choose_coverage(
    conninfo: str,
    application_name: str,
    slot: str,
    store: ObjectStore,
    codec: Codec,
    *,
    writer: str,
    shipping: WalShipping | None = None,
) -> WalCoverage:
    """The resident stream's work if its slot is in use, else a stream of our own with its slot made already.

    One look is not enough: a receiver that reconnects is away for a moment. ``shipping``: how a stream of our own
    stores WAL (None: we do).
    """
    with Session.connect(conninfo, application_name=application_name) as session:
        facts = session.facts()
        for look in range(_LOOKS):
            row = session.slot(slot)
            if row is None:
                break
            if row.active:
                return BucketWal(store)
            if look < _LOOKS - 1:
                time.sleep(_LOOK_SECONDS)
    shipping = shipping or NativeShipping(store, codec, concurrency=_OWN_CONCURRENCY)
    own = OwnWal(conninfo, store, codec, shipping, writer=writer, standby=facts.in_recovery)
    own.prepare()
    return own
