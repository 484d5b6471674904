"""Notices made by hand."""

from __future__ import annotations

from typing import Any

from pgbackup.alerts.base import Answer, DeliveryError, Origin
from pgbackup.core.alert_book import Notice, NoticeKind
from pgbackup.core.findings import Finding, Severity
from tests.made_catalog import minutes

ORIGIN = Origin("bucket/prefix", "db-1", "s3://bucket/prefix", "0.1.0", "db.example.org:5432/shop")


def notice(key: str = "wal:not-durable", kind: NoticeKind = NoticeKind.OPENED, **changes: Any) -> Notice:
    fields = {"severity": Severity.CRITICAL, "summary": "WAL of <5> s & more", "hint": "Mend it.", "facts": {"lag": 5}}
    finding = Finding(key, **{**fields, **changes})  # type: ignore[arg-type]
    return Notice(kind, finding, minutes(0), minutes(1))


class MadeChannel:
    """Keeps what was sent; fails as often as it is told to."""

    def __init__(self, name: str = "made", *, failures: int = 0, retryable: bool = True) -> None:
        self._name = name
        self.failures = failures
        self.retryable = retryable
        self.sent: list[Notice] = []
        self.tries = 0
        self.closed = False

    @property
    def name(self) -> str:
        return self._name

    def send(self, notice: Notice) -> Answer:
        self.tries += 1
        if self.failures:
            self.failures -= 1
            raise DeliveryError("HTTP 503", retryable=self.retryable)
        self.sent.append(notice)
        return Answer("HTTP 200")

    def close(self) -> None:
        self.closed = True
