"""Sentry: a notice is an event whose fingerprint is the finding's key.

Sentry groups events by fingerprint, so a repeated notice is the same issue. What is over is told as an event of its own
(level info, fingerprint key + "resolved"), because an event cannot resolve an issue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgbackup.alerts.base import Answer, Origin, notice_id
from pgbackup.core.alert_book import Notice, NoticeKind
from pgbackup.core.findings import Severity

if TYPE_CHECKING:
    from pgbackup.alerts.sentry_client import SentryClient


class SentryChannel:
    """Notices as events."""

    def __init__(self, client: SentryClient, origin: Origin) -> None:
        client.join()
        self._client = client
        self._origin = origin

    @property
    def name(self) -> str:
        return f"sentry {self._client.host}"

    def send(self, notice: Notice) -> Answer:
        """Raises DeliveryError."""
        return Answer(f"event {self._client.capture(event_of(notice, self._origin))}")

    def close(self) -> None:
        self._client.leave()


def event_of(notice: Notice, origin: Origin) -> dict[str, Any]:
    """The event of a notice (https://develop.sentry.dev/sdk/data-model/event-payloads/)."""
    finding = notice.finding
    over = notice.kind is NoticeKind.RESOLVED
    tags = {"cluster": origin.cluster, "host": origin.host, "key": finding.key, "severity": finding.severity.word}
    if origin.database:
        tags["database"] = origin.database
    tags |= {name: str(finding.facts[name]) for name in ("backup", "timeline") if name in finding.facts}
    return {
        "event_id": notice_id(notice, origin),
        "timestamp": notice.time.isoformat(),
        "level": _level(notice),
        "logger": "pgbackup",
        "message": f"resolved: {finding.summary}" if over else finding.summary,
        "fingerprint": [finding.key, "resolved"] if over else [finding.key],
        "tags": tags,
        "contexts": {
            "finding": {
                "hint": finding.hint,
                "since": notice.since.isoformat(),
                "kind": str(notice.kind),
                "count": notice.count,
                **finding.facts,
            },
            "pgbackup": {"repository": origin.repository, "version": origin.version},
        },
    }


def _level(notice: Notice) -> str:
    if notice.kind in (NoticeKind.RESOLVED, NoticeKind.TEST):
        return "info"
    return "error" if notice.finding.severity is Severity.CRITICAL else "warning"
