"""The settings of a server that are recorded with its backups, because a restore may need them; never a secret.

postgresql.conf may lie outside the data directory (Debian keeps it in /etc), so the copy alone does not have them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pgbackup.postgres.session import Session

_FILES = ("config_file", "hba_file", "ident_file")
_NON_DEFAULT = """
SELECT name, current_setting(name, true) FROM pg_settings
 WHERE source NOT IN ('default', 'override', 'client', 'session', 'database', 'user', 'database user', 'interactive')
 ORDER BY name
"""
_CONFIG_FILES = "SELECT name, setting FROM pg_settings WHERE name IN ('config_file', 'hba_file', 'ident_file')"

# A left-over target must never reach another recovery; a connection string is somebody's way in.
_NOT_RECORDED = re.compile(
    r"primary_conninfo|recovery_target.*|.*passw.*|.*passphrase.*|.*secret.*|.*token.*|.*credential.*|.*private.*"
    r"|.*api_?key.*"
)
_USER_INFO = re.compile(r"://[^/@\s'\"]*@")
_ASSIGNED_SECRET = re.compile(
    r"([\w.-]*(?:passw|passphrase|secret|token|key|credential)[\w.-]*\s*[=:]\s*)('[^']*'|\"[^\"]*\"|\S+)", re.IGNORECASE
)
_HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class RecordedSettings:
    """Non-default settings, as SHOW prints them, and the paths of the configuration files."""

    settings: dict[str, str]
    config_files: dict[str, str]


def read_settings(session: Session) -> RecordedSettings:
    """Ask the server. Settings that our role may not see are left out."""
    files = {name: value for name, value in session.query(_CONFIG_FILES) if value}
    return RecordedSettings(select_settings(session.query(_NON_DEFAULT)), files)


def select_settings(rows: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """What of (name, value) pairs may be recorded, with secrets inside values hidden."""
    return {
        name: hide_secrets(value)
        for name, value in rows
        if value is not None and name not in _FILES and not _NOT_RECORDED.fullmatch(name.lower())
    }


def hide_secrets(value: str) -> str:
    """A value without what looks like a user and password in a URL, or like an assigned secret in a command."""
    return _ASSIGNED_SECRET.sub(rf"\g<1>{_HIDDEN}", _USER_INFO.sub(f"://{_HIDDEN}@", value))
