"""Every setting of pgbackup, as one frozen value that is complete and checked before anything starts.

Three layers, weakest first: the TOML file, the environment (``PGBACKUP_`` and the name in capitals), flags; they are
read by sources.py, which also refuses what is unknown. libpq's and boto3's own variables stay with libpq and boto3.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from pgbackup.config import problems, sources
from pgbackup.config.dsn import passwords
from pgbackup.config.fields import (
    ApplicationName,
    CompressionText,
    Dsn,
    HostName,
    Rate,
    RepositoryText,
    ScheduleText,
    SlotName,
    Switch,
    TimeZoneName,
    choice,
    count,
    duration,
    is_time_zone,
    secret,
    setting,
    size,
)

_layers: ContextVar[tuple[dict[str, str], ...]] = ContextVar("layers", default=())
_SECOND = timedelta(seconds=1)


class _Repository(BaseSettings):
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
    part_size: Annotated[int, size(1 << 20, 64 << 30)] = setting(
        256 << 20, "Raw bytes of a base backup in one stored object, about."
    )
    upload_concurrency: Annotated[int, count(1, 64)] = setting(4, "Uploads in flight for a base backup.")
    wal_upload_concurrency: Annotated[int, count(1, 64)] = setting(4, "Uploads in flight for WAL.")
    upload_rate: Rate | None = setting(
        None,
        "Upload limit of the process, for example `20MB/s`; WAL goes before base backups.",
        shown_default="no limit",
    )


class _Server(BaseSettings):
    """The Postgres server, and what is asked of it."""

    dsn: Dsn | None = secret(
        "How to connect, as libpq reads it; several hosts may be named. Without it libpq's own variables count "
        "(`PGHOST`, `PGUSER`, `PGPASSWORD`, `PGSSLMODE`, ...)."
    )
    admin_dsn: Dsn | None = secret("How `init --apply` connects, as a role that may create roles.")
    slot: SlotName = setting("pgbackup", "The replication slot; `run` creates it.")
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


class _Process(BaseSettings):
    """The process: when it works, how it logs, who it is."""

    schedule: ScheduleText = setting(
        "daily at 02:00",
        'Base backups of `run`: "daily at 02:00", "every 6 hours", "weekly on sunday at 03:00", or five cron fields.',
    )
    timezone: TimeZoneName = setting(
        "UTC", "Time zone of the schedule.", shown_default="`TZ` if it names one, else UTC"
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


class Settings(_Process, _Server, _Repository):
    """All settings. ``Settings(name=value, ...)`` reads no environment and no file; ``load_settings`` does."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the layers that ``load_settings`` has read: the library's own sources pass over what is unknown."""
        return init_settings, *(InitSettingsSource(settings_cls, dict(layer)) for layer in _layers.get())

    @property
    def tz(self) -> ZoneInfo:
        """The time zone of the schedule."""
        return ZoneInfo(self.timezone)

    def origin(self, name: str) -> str:
        """Where a setting's value comes from: ``default``, its variable, its flag, or the TOML file."""
        return self._origins.get(name, "default")

    def remember_origins(self, origins: Mapping[str, str]) -> None:
        self._origins.update(origins)

    def secret_values(self) -> list[str]:
        """Every secret's text, and the passwords in connection strings, for the filter of the logs."""
        given = [getattr(self, name) for name in type(self).model_fields]
        texts = [value.get_secret_value() for value in given if isinstance(value, SecretStr)]
        return [*texts, *(word for text in texts for word in passwords(text))]


def load_settings(
    *,
    environ: Mapping[str, str],
    toml: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    check_key: Callable[[str, str], object] | None = None,
    need_repository: bool = True,
) -> Settings:
    """The settings of a process. Raises one ConfigError that names every problem.

    ``toml``: the file, or None for none; ``overrides``: flags by name of the setting; ``check_key``: called with the
    encryption key's text and its transform, raises ValueError for a key that cannot be used.
    """
    names = {name: name in SECRETS for name in Settings.model_fields}
    read = sources.read_layers(names, environ=environ, toml=toml, overrides=overrides or {})
    read = read.with_default("timezone", _time_zone_of(environ), "TZ")
    found = list(read.problems)
    if need_repository and not any("repository" in layer.values for layer in read.layers):
        found.append(problems.Problem("repository", "is missing: s3://bucket/prefix or file:///path"))
    token = _layers.set(tuple(layer.values for layer in read.layers))
    try:
        settings = Settings()
    except ValidationError as exc:
        found += problems.from_validation(exc, read, SECRETS)
        raise problems.config_error(found) from None
    finally:
        _layers.reset(token)
    if settings.encryption_key is not None and check_key is not None:
        found += problems.from_key_check(settings, check_key)
    if found:
        raise problems.config_error(found)
    settings.remember_origins(read.origins())
    return settings


def _time_zone_of(environ: Mapping[str, str]) -> str:
    """``TZ``, which may also be a path or a rule; those do not count."""
    name = environ.get("TZ", "").removeprefix(":")
    return name if name and is_time_zone(name) else ""


def note(name: str, key: str) -> object:
    """What a setting's field says under ``key`` (``shown_default``, ``secret``), or None."""
    extra = Settings.model_fields[name].json_schema_extra
    return extra.get(key) if isinstance(extra, dict) else None


SECRETS = frozenset(name for name in Settings.model_fields if note(name, "secret"))
