"""Why the server's pg_wal grows when it is not our slot that holds WAL back, and when the disk is full.

Whatever holds back most is named as the cause: another slot, an archive_command that fails or does not keep up,
wal_keep_size, or checkpoints that do not get done. What the operator has bounded, and what fits, is no finding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from pgbackup.core.findings import Finding, Severity
from pgbackup.core.growth import time_left, time_text
from pgbackup.core.held_wal import by_share, by_size, by_time_left, is_little, share_of_disk, worst
from pgbackup.core.size_text import size_text


@dataclass(frozen=True, slots=True)
class OtherSlot:
    """Another replication slot, and how much WAL it holds back."""

    name: str
    active: bool
    retained_bytes: int


@dataclass(frozen=True, slots=True)
class PgWalSample:
    """One look at pg_wal, at ``moment`` (aware); bytes. ``free_bytes`` is None when the disk cannot be seen.

    ``own_bytes``: what our slot holds back; ``waiting_bytes``: segments that wait to be archived, None where nobody
    archives; ``failed_wal``: what the archiver failed with last (empty: it does not fail); ``without_command``: it has
    nothing to archive with.
    """

    moment: datetime
    wal_bytes: int
    free_bytes: int | None
    own_bytes: int
    slots: tuple[OtherSlot, ...] = ()
    keep_bytes: int = 0
    max_bytes: int = 0
    waiting_bytes: int | None = None
    failed_wal: str = ""
    without_command: bool = False


@dataclass(frozen=True, slots=True)
class _Cause:
    """What holds WAL back; ``bounded``: it ends by itself at a size that somebody has set."""

    key: str
    held_bytes: int
    text: str
    hint: str
    bounded: bool = False


def pg_wal_findings(sample: PgWalSample, rate: float) -> Iterator[Finding]:
    """What is wrong with pg_wal, which grows by ``rate`` bytes a second; nothing where our slot is the cause, which is
    told by what watches that."""
    cause = max(_causes(sample), key=lambda each: each.held_bytes, default=None)
    if cause is None or cause.held_bytes <= sample.own_bytes:
        return
    left = time_left(sample.free_bytes, rate)
    severity = worst(_severities(sample, cause, left))
    if severity is None:
        return
    text = f"pg_wal holds {size_text(sample.wal_bytes)}, because {cause.text}"
    if left is not None:
        text += f": the disk is full in {time_text(left)} at this rate"
    elif sample.free_bytes is not None:
        text += f"; {size_text(sample.free_bytes)} are free"
    facts = {
        "wal_bytes": sample.wal_bytes,
        "held_bytes": cause.held_bytes,
        "free_bytes": sample.free_bytes,
        "bytes_per_second": round(rate),
    }
    yield Finding(f"pg-wal:{cause.key}", severity, text, cause.hint, facts)


def _causes(sample: PgWalSample) -> Iterator[_Cause]:
    for slot in sample.slots:
        used = "is too slow with" if slot.active else "nobody streams from"
        yield _Cause(
            f"slot:{slot.name}",
            slot.retained_bytes,
            f"{'somebody ' if slot.active else ''}{used} replication slot {slot.name}, which keeps "
            f"{size_text(slot.retained_bytes)}",
            f"Start or mend what uses it, or SELECT pg_drop_replication_slot('{slot.name}') when nobody needs it; "
            "max_slot_wal_keep_size bounds every slot.",
        )
    if sample.waiting_bytes is not None:
        yield _Cause(
            "archiving",
            sample.waiting_bytes,
            f"{_archiving(sample)}: {size_text(sample.waiting_bytes)} wait to be archived",
            "The server's log shows what it says. pgbackup needs no archive_command: where nothing else does, set "
            "archive_command = '/bin/true', and archive_mode = off with the next restart.",
        )
    yield _Cause(
        "keep-size",
        min(sample.keep_bytes, sample.wal_bytes),
        f"wal_keep_size is {size_text(sample.keep_bytes)}",
        "Lower wal_keep_size and reload: slots keep for standbys what they need, and pgbackup has its own.",
        bounded=True,
    )
    yield _Cause(
        "checkpoints",
        sample.wal_bytes - sample.max_bytes - sample.keep_bytes,
        f"checkpoints do not keep it within max_wal_size, which is {size_text(sample.max_bytes)}",
        "See the server's log for checkpoints that do not end, and its disks for being too slow.",
    )


def _archiving(sample: PgWalSample) -> str:
    if sample.without_command:
        return "archive_mode is on without an archive_command"
    return f"archive_command fails at {sample.failed_wal}" if sample.failed_wal else "archive_command does not keep up"


def _severities(sample: PgWalSample, cause: _Cause, left: timedelta | None) -> Iterator[Severity | None]:
    held, free = cause.held_bytes, sample.free_bytes
    if is_little(held, free):
        return
    if cause.bounded and (free is None or sample.wal_bytes + free > sample.keep_bytes + sample.max_bytes):
        return
    if cause.key == "archiving" and (sample.failed_wal or sample.without_command):
        yield Severity.WARNING
    if free is not None:
        yield by_share(share_of_disk(held, free))
    yield by_time_left(left)
    yield by_size(held)
