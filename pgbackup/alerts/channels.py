"""From settings to channels. An address that cannot be used does not keep the others from working: it is a finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from pgbackup.alerts.address import wrong_http
from pgbackup.alerts.base import Channel, Origin
from pgbackup.core.findings import Finding, Severity

if TYPE_CHECKING:
    from pgbackup.alerts.heartbeat import Heartbeat
    from pgbackup.alerts.sentry_client import SentryClient


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Where people are told; what may be secret is not shown by repr. ``webhook_secret`` signs our own shape."""

    origin: Origin
    webhook_urls: Sequence[str] = field(default=(), repr=False)
    webhook_secret: str = field(default="", repr=False)
    sentry_dsn: str = field(default="", repr=False)
    heartbeat_url: str = field(default="", repr=False)
    repeat: timedelta = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Channels:
    """What could be built, and findings for what could not."""

    channels: tuple[Channel, ...] = ()
    problems: tuple[Finding, ...] = ()
    sentry: SentryClient | None = None
    """For the check-ins of cron monitors."""
    heartbeat: Heartbeat | None = None

    @property
    def testable(self) -> tuple[Channel, ...]:
        """Everything that `pgbackup alerts test` tries: the channels and the heartbeat."""
        return self.channels if self.heartbeat is None else (*self.channels, self.heartbeat)

    def problem_text(self) -> str:
        """All problems in one text, for a ConfigError; empty when there are none."""
        return "; ".join(finding.summary for finding in self.problems)


def build_channels(settings: AlertSettings) -> Channels:
    """Build a channel for each address."""
    channels: list[Channel] = []
    problems: list[Finding] = []
    client: SentryClient | None = None
    for number, url in enumerate(settings.webhook_urls, start=1):
        try:
            channels.append(_webhook(url, settings))
        except ValueError as exc:
            problems.append(_problem(f"PGBACKUP_WEBHOOK_URLS ({number})", str(exc)))
    if settings.sentry_dsn:
        from pgbackup.alerts.sentry import SentryChannel
        from pgbackup.alerts.sentry_client import SentryClient, check_dsn

        try:
            check_dsn(settings.sentry_dsn)
        except ValueError as exc:
            problems.append(_problem("SENTRY_DSN", str(exc)))
        else:
            origin = settings.origin
            client = SentryClient(settings.sentry_dsn, release=f"pgbackup@{origin.version}", server_name=origin.host)
            channels.append(SentryChannel(client, origin))
    heartbeat: Heartbeat | None = None
    if settings.heartbeat_url:
        if wrong := wrong_http(settings.heartbeat_url):
            problems.append(_problem("PGBACKUP_HEARTBEAT_URL", wrong))
        else:
            from pgbackup.alerts.heartbeat import Heartbeat

            heartbeat = Heartbeat(settings.heartbeat_url)
    return Channels(tuple(channels), tuple(problems), client, heartbeat)


def _webhook(url: str, settings: AlertSettings) -> Channel:
    scheme = url.partition(":")[0].lower()
    if scheme not in ("http", "https"):
        from pgbackup.alerts.apprise_channel import AppriseChannel

        return AppriseChannel(url, settings.origin)
    if wrong := wrong_http(url):
        raise ValueError(wrong)
    from pgbackup.alerts.webhook import Webhook

    secret = settings.webhook_secret.encode() if settings.webhook_secret else None
    return Webhook(url, settings.origin, secret=secret)


def _problem(what: str, text: str) -> Finding:
    return Finding(
        f"alert-config:{what}",
        Severity.CRITICAL,
        f"alerts cannot be sent as configured: {what}: {text}",
        "Correct the setting and restart; `pgbackup alerts test` tries every channel.",
    )
