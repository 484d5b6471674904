"""Settings in a file survive whatever is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgbackup.postgres.server_settings import append_settings, format_value, quote_value


@pytest.mark.parametrize(
    ("value", "plain", "quoted"),
    [
        (True, "on", "'on'"),
        (False, "off", "'off'"),
        (12, "12", "'12'"),
        ("16MB", "16MB", "'16MB'"),
        ("it's", "it's", "'it''s'"),
        ("a\\b", "a\\b", "'a\\\\b'"),
        ("", "", "''"),
    ],
)
def test_values(value: str | int | bool, plain: str, quoted: str) -> None:
    assert format_value(value) == plain
    assert quote_value(value) == quoted


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "postgresql.conf"
    path.write_text("# first\n")
    append_settings(path, {"fsync": False, "port": 5433})
    append_settings(path, {"port": 5434})
    assert path.read_text() == "# first\nfsync = 'off'\nport = '5433'\nport = '5434'\n"
