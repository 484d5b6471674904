"""The port to a channel that tells people, and what a notice says of where it comes from."""

from __future__ import annotations

import hashlib
import traceback
from dataclasses import dataclass
from typing import Protocol

from pgbackup.core.alert_book import Notice


@dataclass(frozen=True, slots=True)
class Origin:
    """Which cluster speaks. ``cluster`` is its system identifier as text, or a name, ``database`` where its server is
    (``host:port/name``, empty when nobody can say); nothing here is secret."""

    cluster: str
    host: str
    repository: str
    version: str
    database: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a channel said to a notice: ``text`` is for people (``HTTP 200``)."""

    text: str


def notice_id(notice: Notice, origin: Origin) -> str:
    """32 hex digits, the same each time one notice is sent, so that a receiver knows a delivery that is retried."""
    finding = notice.finding
    what = (origin.cluster, origin.host, finding.key, notice.kind, notice.since, notice.time, notice.count)
    return hashlib.sha256("\0".join(map(str, what)).encode(errors="replace")).hexdigest()[:32]


class DeliveryError(Exception):
    """A notice could not be delivered. The text never holds an address or a token; ``retry_after`` in seconds."""

    def __init__(self, text: str, *, retryable: bool, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retryable = retryable
        self.retry_after = retry_after


def bug(exc: Exception) -> str:
    """Where a bug is, without its text: a library's may quote an address, and with it a token."""
    frames = traceback.extract_tb(exc.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"
    return f"a bug: {type(exc).__name__} at {where}"


class Channel(Protocol):
    """Sends one notice at a time; called from one thread, and bounded: no call takes longer than about 30 s."""

    @property
    def name(self) -> str:
        """For logs and findings: kind and host, never a path or a token."""

    def send(self, notice: Notice) -> Answer:
        """Deliver. Raises DeliveryError."""

    def close(self) -> None:
        """Give back connections."""
