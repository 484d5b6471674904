"""Gives memory that is free back to the system, so that a sidecar which rests is small.

The C library keeps what uploads and compression have freed, in an arena for each thread; ``malloc_trim`` is glibc's
way to hand it back. Elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def _find_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return trim


_TRIM = _find_trim()


def release_free_memory() -> None:
    """Takes milliseconds; call it when little is going on."""
    if _TRIM is not None:
        _TRIM(0)
