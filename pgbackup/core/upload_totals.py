"""What uploads have come to since the process began: how many, how much, how long, and which errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pgbackup.errors import CorruptObject, StoreDenied, StoreUnavailable

SECONDS_BOUNDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram's buckets; one more bucket holds what took longer."""

ERROR_KINDS = ("denied", "unavailable", "corrupt", "other")


@dataclass(frozen=True, slots=True)
class UploadTotals:
    """``objects`` of any kind, ``segments`` among them that are whole; ``stored_bytes`` as stored. ``buckets`` counts
    objects by seconds, each bucket for itself, the last without a bound; ``errors`` by kind."""

    objects: int = 0
    segments: int = 0
    stored_bytes: int = 0
    seconds: float = 0.0
    buckets: tuple[int, ...] = (0,) * (len(SECONDS_BOUNDS) + 1)
    errors: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(ERROR_KINDS, 0))


def bucket_of(seconds: float) -> int:
    """The index of the bucket that an upload of so many seconds belongs to."""
    return next((index for index, bound in enumerate(SECONDS_BOUNDS) if seconds <= bound), len(SECONDS_BOUNDS))


def error_kind(error: BaseException) -> str:
    """One of ERROR_KINDS."""
    match error:
        case StoreDenied():
            return "denied"
        case StoreUnavailable():
            return "unavailable"
        case CorruptObject():
            return "corrupt"
        case _:
            return "other"
