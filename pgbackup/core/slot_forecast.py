"""How much WAL the slot holds back, how fast that grows, and when it takes the server down or is lost.

A series of samples gives the rate of the last minutes; what is left (up to ``max_slot_wal_keep_size``, to the free
space, to our own limit) divided by the rate is the time that is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from pgbackup.core.findings import Finding, Severity
from pgbackup.core.growth import GrowthSeries, time_left, time_text
from pgbackup.core.held_wal import by_share, by_size, by_time_left, is_little, share_of_disk, worst
from pgbackup.core.size_text import size_text

_IN_FLIGHT_BYTES = 32 << 20
"""Two segments, which may always be on their way."""


@dataclass(frozen=True, slots=True)
class SlotSample:
    """One look at the slot, at ``moment`` (aware). Bytes; ``safe_bytes`` and ``free_bytes`` are None when nothing
    bounds the slot, and when the disk cannot be seen. ``exists`` False: the server has no such slot."""

    moment: datetime
    exists: bool
    active: bool = False
    wal_status: str = ""
    retained_bytes: int = 0
    safe_bytes: int | None = None
    wal_bytes: int | None = None
    free_bytes: int | None = None
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class SlotForecast:
    """``rate`` in bytes a second (0 when it does not grow); the times left are None when nothing is in sight."""

    rate: float
    until_lost: timedelta | None
    until_full: timedelta | None


class SlotSeries:
    """The samples of the last minutes."""

    def __init__(self) -> None:
        self._growth = GrowthSeries()

    def add(self, sample: SlotSample) -> SlotForecast:
        """Add a sample and look ahead from it."""
        rate = self._growth.add(sample.moment, sample.retained_bytes)
        return SlotForecast(rate, time_left(sample.safe_bytes, rate), time_left(sample.free_bytes, rate))


def should_drop(sample: SlotSample, limit_bytes: int | None, before: SlotSample | None = None) -> bool:
    """Whether the operator wants the slot gone rather than the server. ``before``: the look before this one, if any.

    One that is being emptied takes no more of the disk, and one that was made just now only names what is there anyway:
    both are let be, for dropping them over and over keeps the stream from getting through, and loses WAL.
    """
    if limit_bytes is None or not sample.exists or sample.retained_bytes <= limit_bytes:
        return False
    if before is None:
        return True
    return before.exists and not (sample.active and sample.retained_bytes < before.retained_bytes)


def slot_findings(sample: SlotSample, forecast: SlotForecast, limit_bytes: int | None) -> Iterator[Finding]:
    """What is wrong with the slot. ``limit_bytes``: what we drop it at, or None."""
    if not sample.exists:
        yield Finding(
            "slot:missing",
            Severity.CRITICAL,
            "the replication slot does not exist, so the server keeps no WAL for us",
            "`pgbackup run` makes it as soon as it can stream. If it was there before, somebody dropped it.",
        )
        return
    if sample.wal_status in ("lost", "unreserved"):
        lost = sample.wal_status == "lost"
        yield Finding(
            "slot:lost" if lost else "slot:unreserved",
            Severity.CRITICAL,
            "the server has removed WAL that the slot needed" if lost else "the server will remove WAL the slot needs",
            "Is `pgbackup run` shipping? A larger max_slot_wal_keep_size gives it more time.",
            {"retained_bytes": sample.retained_bytes},
        )
        return
    severity = worst(_severities(sample, forecast, limit_bytes))
    if severity is not None:
        yield Finding(
            "slot:retention",
            severity,
            _summary(sample, forecast, limit_bytes),
            "Is the store reachable and fast enough? `max_slot_wal_keep_size` keeps the slot from filling the disk, "
            "PGBACKUP_SLOT_MAX_RETAINED drops it before that.",
            {
                "retained_bytes": sample.retained_bytes,
                "safe_bytes": sample.safe_bytes,
                "free_bytes": sample.free_bytes,
                "bytes_per_second": round(forecast.rate),
            },
        )


def _severities(sample: SlotSample, forecast: SlotForecast, limit: int | None) -> Iterator[Severity | None]:
    if sample.retained_bytes >= _IN_FLIGHT_BYTES:
        # Limits that somebody has set count, however small: at them WAL is lost.
        yield from map(by_share, _shares_of_limits(sample, limit))
    if is_little(sample.retained_bytes, sample.free_bytes):
        return
    if sample.free_bytes is not None:
        yield by_share(share_of_disk(sample.retained_bytes, sample.free_bytes))
    yield by_time_left(forecast.until_lost)
    yield by_time_left(forecast.until_full)
    yield by_size(sample.retained_bytes)


def _shares_of_limits(sample: SlotSample, limit: int | None) -> Iterator[float]:
    """How much of what it may take the slot has taken."""
    if limit:
        yield sample.retained_bytes / limit
    if sample.limit_bytes:
        yield sample.retained_bytes / sample.limit_bytes


def _summary(sample: SlotSample, forecast: SlotForecast, limit: int | None) -> str:
    text = f"the slot holds back {size_text(sample.retained_bytes)} of WAL on the server"
    if limit and by_share(sample.retained_bytes / limit):
        text += f", is dropped at {size_text(limit)}"
    elif sample.limit_bytes and by_share(sample.retained_bytes / sample.limit_bytes):
        text += f", is lost at {size_text(sample.limit_bytes)}"
    if forecast.rate:
        text += f", {size_text(round(forecast.rate))}/s more"
    if forecast.until_full is not None:
        text += f": the disk is full in {time_text(forecast.until_full)} at this rate"
    elif forecast.until_lost is not None:
        text += f": the slot is lost in {time_text(forecast.until_lost)} at this rate"
    elif sample.free_bytes is not None:
        text += f", {size_text(sample.free_bytes)} are free"
    return text
