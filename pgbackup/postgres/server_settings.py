"""Writes settings the way postgresql.conf and ``postgres -c`` take them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

SettingValue = str | int | bool


def format_value(value: SettingValue) -> str:
    """A value as text: booleans are on and off."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def quote_value(value: SettingValue) -> str:
    """A value in single quotes, as postgresql.conf takes it: quotes and backslashes are doubled."""
    return "'" + format_value(value).replace("\\", "\\\\").replace("'", "''") + "'"


def append_settings(path: Path, settings: Mapping[str, SettingValue]) -> None:
    """Append ``name = 'value'`` lines; of several lines with one name the last one holds."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{name} = {quote_value(value)}\n" for name, value in settings.items())
