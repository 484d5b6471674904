"""The README's table of settings is the one that the settings themselves make."""

from __future__ import annotations

from pathlib import Path

from pgbackup.config.table import settings_table

README = Path(__file__).parents[3] / "README.md"


def test_the_readme_has_the_table_of_settings():
    assert settings_table() in README.read_text("utf-8")
