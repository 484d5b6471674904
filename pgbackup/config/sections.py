"""The settings by what they are about: each with its default, its check, and what the documentation says of it."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from pgbackup.config.fields import (
    ApplicationName,
    CompressionText,
    Dsn,
    HostName,
    ListenText,
    OptionalSchedule,
    Rate,
    RepositoryText,
    ScheduleText,
    SlotName,
    Switch,
    TimeZoneName,
    choice,
    count,
    duration,
    secret,
    setting,
    size,
)
from pgbackup.config.listen import DEFAULT_LISTEN

_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)


class RepositorySection(BaseSettings):
    """Where backups lie, and how they are stored."""

    repository: RepositoryText = setting(
        "",
        "Where backups lie: `s3://bucket/prefix` or `file:///path`. `{system_identifier}` and `{pg_major}` in the path "
        "are filled in from the server. Required.",
        shown_default="none",
    )
    compression: CompressionText = setting("zstd:1", "`zstd:1` (fast) to `zstd:19` (small), `lz4` or `none`.")
    encryption_key: SecretStr | None = secret(
        "Encrypts everything but names and sizes (libsodium, WAL-G's scheme). Lost key, lost backups."
    )
    encryption_key_transform: Annotated[Literal["none", "hex", "base64"], choice("none", "hex", "base64")] = setting(
        "none", "How the key is written: `none` (the text itself), `hex` or `base64`."
    )
    accept_unencrypted: Switch = setting(
        False,
        "`yes`: with a key, also read objects that are not encrypted, another tool's from before there was a key. "
        "Whoever can write to the repository can then put in what is restored.",
    )
    accept_gnupg: Switch = setting(
        False,
        "`yes`: with a key, also read objects that are encrypted with GnuPG, another tool's from before there was a "
        "key. Whoever has the public key and can write to the repository can then put in what is restored.",
    )
    part_size: Annotated[int, size(1 << 20, 64 << 30)] = setting(
        256 << 20, "Raw bytes of a base backup in one stored object, about."
    )
    upload_concurrency: Annotated[int, count(1, 20)] = setting(4, "Uploads in flight for a base backup.")
    download_concurrency: Annotated[int, count(1, 16)] = setting(4, "Objects that a restore reads at once.")
    wal_upload_concurrency: Annotated[int, count(1, 64)] = setting(4, "Uploads in flight for WAL.")
    upload_rate: Rate | None = setting(
        None,
        "Upload limit of the process, for example `20MB/s`; WAL goes before base backups.",
        shown_default="no limit",
    )


class EngineSection(BaseSettings):
    """What moves the bytes: pgbackup itself, or another tool of the family."""

    engine: Annotated[Literal["native", "wal-e", "wal-g"], choice("native", "wal-e", "wal-g")] = setting(
        "native", "What takes and restores backups and ships WAL: pgbackup itself, or the program `wal-e` or `wal-g`."
    )
    tool: str = setting("", "The program of the engine `wal-e` or `wal-g`.", shown_default="found on `PATH`")
    pgdata: str = setting(
        "",
        "The server's data directory as this machine sees it, for the engines `wal-e` and `wal-g`; `none`: `wal-g` "
        "takes base backups over the replication protocol.",
        shown_default="where the server says, if it is visible",
    )


class ServerSection(BaseSettings):
    """The Postgres server, and what is asked of it."""

    dsn: Dsn | None = secret(
        "How to connect, as libpq reads it; several hosts may be named. Without it libpq's own variables count "
        "(`PGHOST`, `PGUSER`, `PGPASSWORD`, `PGSSLMODE`, ...)."
    )
    admin_dsn: Dsn | None = secret("How `init --apply` connects, as a role that may create roles.")
    slot: SlotName = setting("pgbackup", "The replication slot; `run` creates it.")
    slot_max_retained: Annotated[int, size(64 << 20, 1 << 50)] | None = setting(
        None,
        "`run` drops the slot when it holds back more WAL than this, before the server's disk is full: what was not "
        "shipped by then is lost. At least 64 MiB.",
        shown_default="never",
    )
    application_name: ApplicationName = setting(
        "pgbackup", "Name of the WAL connection: the one to put into `synchronous_standby_names`."
    )
    wal_flush_interval: Annotated[timedelta, duration(_SECOND / 10, timedelta(hours=1), zero=True)] = setting(
        10 * _SECOND,
        "How often the open segment is shipped while WAL arrives: about what is lost when the host dies. `0`: at once, "
        "for commits that wait for the repository.",
    )
    backup_rate: Rate | None = setting(
        None, "Reading limit of a base backup at the server, for example `50MB/s`.", shown_default="no limit"
    )
    page_checksums: Annotated[Literal["mark", "fail"], choice("mark", "fail")] = setting(
        "mark", "A damaged page met by a base backup: `mark` the backup, or `fail` it."
    )


class ProcessSection(BaseSettings):
    """The process: when it works, how it logs, who it is."""

    schedule: ScheduleText = setting(
        "daily at 02:00",
        'Base backups of `run`: "daily at 02:00", "every 6 hours", "weekly on sunday at 03:00", or five cron fields.',
    )
    timezone: TimeZoneName = setting(
        "UTC", "Time zone of the schedule.", shown_default="`TZ` if it names one, else UTC"
    )
    schedule_jitter: Annotated[timedelta, duration(_SECOND, timedelta(hours=12), zero=True)] = setting(
        timedelta(0), "Delays scheduled work by up to this much, so that a fleet does not begin all at once."
    )
    verify_schedule: OptionalSchedule = setting(
        "weekly on sunday at 04:00", "When `run` reads the newest backup and its WAL back from the store, or `off`."
    )
    expire_schedule: OptionalSchedule = setting(
        "daily at 05:00", "When `run` removes what the retention no longer keeps, or `off`."
    )
    stop_timeout: Annotated[timedelta, duration(_SECOND, timedelta(minutes=10))] = setting(
        10 * _SECOND, "How long a stop may take to ship what was received."
    )
    adopt: Switch = setting(
        False, "`yes`: a restored server goes on in the prefix of the server it was restored from, in its place."
    )
    host: HostName = setting(
        socket.gethostname, "Name of this machine in the repository's bookkeeping.", shown_default="the host's name"
    )
    log_format: Annotated[Literal["text", "json"], choice("text", "json")] = setting("text", "`text` or `json`.")
    log_level: Annotated[Literal["debug", "info", "warning", "error"], choice("debug", "info", "warning", "error")] = (
        setting("info", "`debug`, `info`, `warning` or `error`.")
    )


class RetentionSection(BaseSettings):
    """What expiry keeps. A backup stays as long as any of these wants it."""

    retention_backups: Annotated[int, count(1, 10_000)] = setting(7, "The newest so many restorable backups stay.")
    retention_window: Annotated[timedelta, duration(timedelta(minutes=1), timedelta(days=3660), zero=True)] = setting(
        timedelta(days=7), "Every moment of this time stays recoverable."
    )
    retention_daily: Annotated[int, count(0, 10_000)] = setting(0, "The newest backup of each of so many days stays.")
    retention_weekly: Annotated[int, count(0, 10_000)] = setting(0, "The same for weeks.")
    retention_monthly: Annotated[int, count(0, 10_000)] = setting(0, "The same for months.")
    retention_yearly: Annotated[int, count(0, 10_000)] = setting(0, "The same for years.")
    retention_min_restorable: Annotated[int, count(1, 10_000)] = setting(
        1, "Expiry refuses to leave fewer restorable backups than this."
    )


class HealthSection(BaseSettings):
    """How `run` and `status` judge, and where they show it."""

    health_interval: Annotated[timedelta, duration(5 * _SECOND, timedelta(hours=1))] = setting(
        60 * _SECOND, "How often `run` compares bucket and server."
    )
    rpo_warning: Annotated[timedelta, duration(_SECOND, timedelta(days=7))] = setting(
        5 * _MINUTE, "WAL that is older and not in the repository is a warning."
    )
    rpo_critical: Annotated[timedelta, duration(_SECOND, timedelta(days=7))] = setting(
        30 * _MINUTE, "WAL that is older and not in the repository is critical."
    )
    http: ListenText = setting(
        DEFAULT_LISTEN, "Where `run` serves `/livez`, `/readyz`, `/metrics` and `/status.json`; `off` for nowhere."
    )


class AlertSection(BaseSettings):
    """Whom `run` tells."""

    cluster: str = setting(
        "", "Name of the cluster in alerts and metrics.", shown_default="the repository's bucket and prefix"
    )
    sentry_dsn: SecretStr | None = secret("Sentry: events and cron monitors. `SENTRY_DSN` counts as well.")
    webhook_urls: SecretStr | None = secret(
        "Addresses that get a POST for each alert, separated by spaces or commas: Slack, Discord and Teams get their "
        "own shape, others JSON; what is not http(s) goes to Apprise (`pgbackup[apprise]`)."
    )
    webhook_secret: SecretStr | None = secret("Signs the JSON of webhooks (`X-Pgbackup-Signature`, HMAC-SHA256).")
    heartbeat_url: SecretStr | None = secret(
        "Pinged with each look at health while all is well, with `/fail` when it is critical (healthchecks.io style)."
    )
    alert_repeat: Annotated[timedelta, duration(_MINUTE, timedelta(days=30))] = setting(
        timedelta(hours=6), "An alert that stays open is repeated this often."
    )
