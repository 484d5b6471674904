"""The port to a channel that tells people, and what a notice says of where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pgbackup.core.alert_book import Notice


@dataclass(frozen=True, slots=True)
class Origin:
    """Which cluster speaks. ``cluster`` is its system identifier as text, or a name; nothing here is secret."""

    cluster: str
    host: str
    repository: str
    version: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a channel said to a notice: ``text`` is for people (``HTTP 200``)."""

    text: str


class DeliveryError(Exception):
    """A notice could not be delivered. The text never holds an address or a token; ``retry_after`` in seconds."""

    def __init__(self, text: str, *, retryable: bool, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retryable = retryable
        self.retry_after = retry_after


class Channel(Protocol):
    """Sends one notice at a time; called from one thread, and bounded: no call takes longer than about 30 s."""

    @property
    def name(self) -> str:
        """For logs and findings: kind and host, never a path or a token."""

    def send(self, notice: Notice) -> Answer:
        """Deliver. Raises DeliveryError."""

    def close(self) -> None:
        """Give back connections."""
