"""Up to which moment of the server's clock all WAL is durable, from what the server says of its WAL as it streams.

Each message of WAL says at which moment the server's WAL ended where. Such a pair is proven when WAL to that position
is durable, also while more comes all the time: a database that is never quiet must not be one without time marks.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgbackup.core.lsn import Lsn


@dataclass(frozen=True, slots=True)
class WalMoment:
    """When the server's clock (µs since 2000) showed ``clock``, its WAL ended at ``lsn``."""

    clock: int
    lsn: Lsn


class DurableMoment:
    """The newest pair that is proven, in the order in which the server said them. Two more are kept: one that is
    waited for, and the newest."""

    def __init__(self) -> None:
        self.proven: WalMoment | None = None
        self._awaited: WalMoment | None = None
        self._newest: WalMoment | None = None

    def said(self, moment: WalMoment, durable: Lsn) -> None:
        """The server said so; WAL is durable to ``durable``."""
        self._newest = moment
        if self._awaited is None:
            self._awaited = moment
        self.reached(durable)

    def reached(self, durable: Lsn) -> None:
        """WAL is durable to there."""
        if self._awaited is None or self._awaited.lsn > durable:
            return
        self.proven, newest = self._awaited, self._newest
        self._awaited = None
        if newest is not None and newest.lsn <= durable:
            self.proven = newest
        else:
            self._awaited = newest
