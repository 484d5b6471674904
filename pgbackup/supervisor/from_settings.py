"""What the resident process and `status` take from the settings: schedules, limits of health, the alerts' addresses."""

from __future__ import annotations

from datetime import datetime, timedelta

from pgbackup import __version__
from pgbackup.alerts.base import Origin
from pgbackup.alerts.channels import AlertSettings
from pgbackup.alerts.monitors import Monitor
from pgbackup.config.repository_url import redact_url
from pgbackup.config.settings import Settings
from pgbackup.core.health_facts import HealthLimits
from pgbackup.core.jitter import jitter
from pgbackup.core.retention import RetentionPolicy
from pgbackup.core.schedule_spec import ScheduleSpec, next_due
from pgbackup.postgres.server_address import server_address
from pgbackup.supervisor.alert_desk import DeskSettings

BACKUP_JOB = "base backup"
VERIFY_JOB = "verification"
EXPIRE_JOB = "expiry"
_LONGEST_GRACE_SECONDS = 60.0
_MARGIN = timedelta(hours=1)
_EXPIRY_MARGIN = timedelta(hours=12)
"""It waits for a base backup that still runs, which is no run that never started."""


def schedule(text: str) -> ScheduleSpec | None:
    """None for ``off``."""
    return None if text == "off" else ScheduleSpec.parse(text)


class Schedules:
    """When each job is due after it was last done; delayed by the jitter of this cluster."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.backup = ScheduleSpec.parse(settings.schedule)
        self.verify = schedule(settings.verify_schedule)
        self.expire = schedule(settings.expire_schedule)

    def next_backup(self, last: datetime | None, now: datetime) -> datetime:
        """Without any backup one is due now; after downtime the moment lies in the past, which is due as well."""
        return now if last is None else self._after(self.backup, last)

    def next_verification(self, last: datetime | None, now: datetime) -> datetime:
        assert self.verify is not None
        return now if last is None else self._after(self.verify, last)

    def next_expiry(self, last: datetime | None, now: datetime) -> datetime:
        assert self.expire is not None
        return now if last is None else self._after(self.expire, last)

    def _after(self, spec: ScheduleSpec, last: datetime) -> datetime:
        due = next_due(spec, last, self._settings.tz)
        return due + jitter(self._settings.cluster_name, due, self._settings.schedule_jitter)


def limits(settings: Settings) -> HealthLimits:
    """When something is worth a finding."""
    late = settings.schedule_jitter
    return HealthLimits(
        schedule=ScheduleSpec.parse(settings.schedule),
        tz=settings.tz,
        verify_schedule=schedule(settings.verify_schedule),
        rpo_warning=settings.rpo_warning,
        rpo_critical=max(settings.rpo_critical, settings.rpo_warning),
        backup_grace=timedelta(hours=2) + late,
        verify_grace=timedelta(days=1) + late,
        cluster=settings.cluster_name,
        schedule_jitter=late,
        retention=retention(settings),
    )


def retention(settings: Settings) -> RetentionPolicy:
    """What expiry keeps."""
    return RetentionPolicy(
        backups=settings.retention_backups,
        window=settings.retention_window,
        daily=settings.retention_daily,
        weekly=settings.retention_weekly,
        monthly=settings.retention_monthly,
        yearly=settings.retention_yearly,
        min_restorable=settings.retention_min_restorable,
    )


def alert_settings(settings: Settings) -> AlertSettings:
    """Where people are told."""

    def text(secret: object) -> str:
        reveal = getattr(secret, "get_secret_value", None)
        return str(reveal()) if reveal is not None else ""

    return AlertSettings(
        origin=Origin(
            settings.cluster_name,
            settings.host,
            redact_url(settings.repository),
            __version__,
            server_address(text(settings.dsn)),
        ),
        webhook_urls=settings.webhook_addresses,
        webhook_secret=text(settings.webhook_secret),
        sentry_dsn=text(settings.sentry_dsn),
        heartbeat_url=text(settings.heartbeat_url),
        repeat=settings.alert_repeat,
    )


def desk(settings: Settings) -> DeskSettings:
    """Alerts and the cron monitor of each job."""
    schedules = Schedules(settings)
    margin = _MARGIN + settings.schedule_jitter
    monitors = {
        BACKUP_JOB: Monitor.of_schedule("base-backup", schedules.backup, settings.timezone, margin=margin),
    }
    if schedules.verify is not None:
        monitors[VERIFY_JOB] = Monitor.of_schedule("verification", schedules.verify, settings.timezone, margin=margin)
    if schedules.expire is not None:
        late = max(margin, _EXPIRY_MARGIN)
        monitors[EXPIRE_JOB] = Monitor.of_schedule("expiry", schedules.expire, settings.timezone, margin=late)
    grace = min(settings.health_interval.total_seconds(), _LONGEST_GRACE_SECONDS)
    return DeskSettings(alert_settings(settings), monitors, grace)
