"""Every setting of pgbackup, as one frozen value that is complete and checked before anything starts.

Three layers, weakest first: the TOML file, the environment (``PGBACKUP_`` and the name in capitals), flags; they are
read by sources.py, which also refuses what is unknown. Below them lie the variables of WAL-E and WAL-G (inherited.py).
libpq's and boto3's own variables stay with libpq and boto3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from pgbackup.config import problems, refusals, sources
from pgbackup.config.dsn import passwords
from pgbackup.config.engine_problems import engine_problems
from pgbackup.config.fields import is_time_zone
from pgbackup.config.inherited import Inherited, InheritedSettings, read_inherited
from pgbackup.config.inherited_place import config_file
from pgbackup.config.sections import (
    AlertSection,
    EngineSection,
    HealthSection,
    ProcessSection,
    RepositorySection,
    RetentionSection,
    ServerSection,
)
from pgbackup.config.store_connection import StoreConnection

_BETWEEN_ADDRESSES = re.compile(r",*\s+|,+(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_layers: ContextVar[tuple[dict[str, str], ...]] = ContextVar("layers", default=())


class Settings(
    AlertSection, HealthSection, RetentionSection, ProcessSection, ServerSection, EngineSection, RepositorySection
):
    """All settings. ``Settings(name=value, ...)`` reads no environment and no file; ``load_settings`` does."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _toml: Path | None = PrivateAttr(default=None)
    _inherited: InheritedSettings = PrivateAttr(default_factory=InheritedSettings)

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

    @property
    def cluster_name(self) -> str:
        """The name of the cluster for people: the given one, else the place of the repository."""
        return self.cluster or self.repository.partition("://")[2].strip("/")

    @property
    def webhook_addresses(self) -> list[str]:
        """The addresses of the webhooks, each a secret. A comma ends one only where another follows: it may be part of
        one as well."""
        given = self.webhook_urls.get_secret_value().strip(" \t\r\n,") if self.webhook_urls else ""
        return [address for address in _BETWEEN_ADDRESSES.split(given) if address]

    def origin(self, name: str) -> str:
        """Where a setting's value comes from: ``default``, its variable, its flag, or the TOML file."""
        return self._origins.get(name, "default")

    @property
    def toml(self) -> Path | None:
        """The TOML file that was read, or None."""
        return self._toml

    @property
    def inherited(self) -> tuple[Inherited, ...]:
        """What became of each variable of WAL-E and WAL-G that is set."""
        return self._inherited.found

    @property
    def store_connection(self) -> StoreConnection:
        """How S3 is reached, where boto3's own variables do not say it."""
        return self._inherited.connection

    def remember_origins(self, read: sources.Read, toml: Path | None, inherited: InheritedSettings) -> None:
        self._origins.update(read.origins())
        self._toml = toml
        self._inherited = inherited

    def secret_values(self) -> list[str]:
        """Every secret's text, and the passwords in connection strings, for the filter of the logs."""
        given = [getattr(self, name) for name in type(self).model_fields]
        texts = [value.get_secret_value() for value in given if isinstance(value, SecretStr)]
        return [*texts, *self.webhook_addresses, *(word for text in texts for word in passwords(text))]


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
    ours, engine = read.given(), read.value("engine", "native").strip().lower()
    inherited = read_inherited(environ, ours, engine)
    read = read.with_layer(inherited.layer)
    read = read.with_default("timezone", _time_zone_of(environ), "TZ")
    read = read.with_default("sentry_dsn", environ.get("SENTRY_DSN", ""), "SENTRY_DSN")
    found = [*read.problems, *inherited.problems]
    if need_repository and not inherited.problems and "repository" not in read.given():
        found.append(
            problems.Problem("repository", f"is missing: s3://bucket/prefix or file:///path{_unread(environ)}")
        )
    token = _layers.set(tuple(layer.values for layer in read.layers))
    try:
        settings = Settings()
    except ValidationError as exc:
        found += refusals.from_validation(exc, read, SECRETS)
        if check_key is not None:
            found += refusals.from_raw_key(read, {problem.setting for problem in found}, check_key)
        raise problems.config_error(found) from None
    finally:
        _layers.reset(token)
    if settings.encryption_key is not None and check_key is not None:
        origin = read.origins()["encryption_key"]
        found += refusals.from_key_check(settings.encryption_key, settings.encryption_key_transform, check_key, origin)
    found += engine_problems(settings.engine, ours, encrypted=settings.encryption_key is not None)
    if found:
        raise problems.config_error(found)
    settings.remember_origins(read, toml, inherited)
    return settings


def _unread(environ: Mapping[str, str]) -> str:
    file = config_file(environ)
    return f"; {file}, a configuration file of WAL-G, is not read" if file is not None else ""


def _time_zone_of(environ: Mapping[str, str]) -> str:
    """``TZ``, which may also be a path or a rule; those do not count."""
    name = environ.get("TZ", "").removeprefix(":")
    return name if name and is_time_zone(name) else ""


def note(name: str, key: str) -> object:
    """What a setting's field says under ``key`` (``shown_default``, ``secret``), or None."""
    extra = Settings.model_fields[name].json_schema_extra
    return extra.get(key) if isinstance(extra, dict) else None


SECRETS = frozenset(name for name in Settings.model_fields if note(name, "secret"))
