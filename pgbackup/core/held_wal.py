"""How bad it is that so much WAL is held back on the server's disk, by our slot or by whatever else holds it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from pgbackup.core.findings import Severity

_WARNING_LEFT, _CRITICAL_LEFT = timedelta(hours=24), timedelta(hours=2)
_WARNING_SHARE, _CRITICAL_SHARE = 0.5, 0.8
_WARNING_BYTES, _CRITICAL_BYTES = 16 << 30, 64 << 30
_LITTLE_BYTES = 256 << 20
"""Below this nothing is worth a word: a busy server has as much in flight."""


def is_little(held_bytes: int, free_bytes: int | None) -> bool:
    """Whether it is too little for a word, on a disk that has room (``free_bytes``, None: not known)."""
    return held_bytes < _LITTLE_BYTES and (free_bytes is None or free_bytes > _LITTLE_BYTES)


def share_of_disk(held_bytes: int, free_bytes: int) -> float:
    """How much it takes of what there would be without it."""
    return held_bytes / max(1, held_bytes + free_bytes)


def by_share(share: float) -> Severity | None:
    """Of what it may take, or of the disk; 1 is all."""
    return _severity(warning=share >= _WARNING_SHARE, critical=share >= _CRITICAL_SHARE)


def by_time_left(left: timedelta | None) -> Severity | None:
    """Until WAL is lost or the disk is full; None: not in sight."""
    if left is None:
        return None
    return _severity(warning=left < _WARNING_LEFT, critical=left < _CRITICAL_LEFT)


def by_size(held_bytes: int) -> Severity | None:
    """However large the disk may be."""
    return _severity(warning=held_bytes >= _WARNING_BYTES, critical=held_bytes >= _CRITICAL_BYTES)


def worst(found: Iterable[Severity | None]) -> Severity | None:
    """The worst of them; None when nothing is wrong."""
    return max((each for each in found if each is not None), default=None)


def _severity(*, warning: bool, critical: bool) -> Severity | None:
    if not warning:
        return None
    return Severity.CRITICAL if critical else Severity.WARNING
