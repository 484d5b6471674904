"""Whether another process writes to the repository, or only did: told by what its lease does while one looks.

A machine that lost its power leaves a lease that looks alive for as long as it takes to grow stale. So one that was
there at the first look proves nothing yet: that it changes proves it, or that it is where ours was.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgbackup.engines.presence.lease import Lease


@dataclass(frozen=True, slots=True)
class OtherWriter:
    """Who holds the lease and is not us; ``has_written``: since we look."""

    name: str
    has_written: bool


class OtherWriterWatch:
    """For one thread."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._seen = ""
        self._looked = False
        self._has_written = False

    def look(self) -> OtherWriter | None:
        """The live holder of the lease, None when that is nobody or us. Raises what the store raises."""
        stored = self._lease.read()
        before, self._seen = self._seen, stored[1] if stored is not None else ""
        first, self._looked = not self._looked, True
        if stored is None or self._lease.is_ours(stored[0]) or not self._lease.is_alive(stored[0]):
            self._has_written = False
            return None
        self._has_written = self._has_written or (not first and before != self._seen)
        return OtherWriter(stored[0].writer, self._has_written)
