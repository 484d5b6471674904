"""A delay for scheduled work that differs between clusters and is the same each time one cluster asks for it."""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta


def jitter(cluster: str, due: datetime, most: timedelta) -> timedelta:
    """From 0 to ``most``, drawn from the cluster's name and the moment that is delayed; a restart draws it again."""
    drawn = zlib.crc32(f"{cluster} {due.timestamp():.0f}".encode()) / 2**32
    return most * drawn
