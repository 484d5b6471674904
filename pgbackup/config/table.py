"""The settings for people: the table of the README, and the effective values of one process, secrets left out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from pydantic import SecretStr

from pgbackup.config import values
from pgbackup.config.problems import variable_name
from pgbackup.config.repository_url import redact_url
from pgbackup.config.settings import SECRETS, Settings, note

HIDDEN = "********"
_SIZES = frozenset({"part_size"})
_RATES = frozenset({"backup_rate", "upload_rate"})


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """One setting of a process: its variable, its value as text (a secret is never shown), where it came from."""

    variable: str
    value: str
    origin: str


def settings_table() -> str:
    """A Markdown table of every setting: variable, default, meaning."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        shown = note(name, "shown_default") or ("none" if field.default is None else f"`{_text(name, field.default)}`")
        variable = f"`{variable_name(name)}`" + (f", `{variable_name(name)}_FILE`" if name in SECRETS else "")
        rows.append(f"| {variable} | {shown} | {field.description} |")
    return "\n".join(rows) + "\n"


def effective(settings: Settings) -> list[EffectiveSetting]:
    """Every setting with its value, in the order of the table."""
    return [
        EffectiveSetting(variable_name(name), _text(name, getattr(settings, name)), settings.origin(name))
        for name in Settings.model_fields
    ]


def _text(name: str, value: object) -> str:
    if name in SECRETS or isinstance(value, SecretStr):
        return HIDDEN if value is not None else ""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, timedelta):
        return values.format_duration(value)
    if isinstance(value, int) and name in _RATES:
        return values.format_rate(value)
    if isinstance(value, int) and name in _SIZES:
        return values.format_size(value)
    return redact_url(str(value))
