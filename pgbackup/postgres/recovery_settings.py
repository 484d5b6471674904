"""The settings that make a restored data directory recover to its target: one marked block in postgresql.auto.conf.

A backup brings its own settings along, and left-overs of an earlier recovery break the next one. So the block sets
every recovery setting, unused ones to empty: of several lines for one setting Postgres takes the last, and a target of
an older line is forgotten. ALTER SYSTEM writes the file anew without comments, hence also without the marks.

``hot_standby`` is off unless the recovery shall pause at its target: a server that answers queries during recovery
stops when max_connections and its like are lower than they were on the server that wrote the WAL, and a raise later
in the WAL, or a lower value on a container's command line, would do just that. A primary does not look at it.

Before the block, for good, stands that archiving is off, where that is wanted: the block goes after the promotion, and
at its next restart a copy would begin to write into the archive of the server that lives on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pgbackup.core.recovery_target import Target
from pgbackup.postgres.server_settings import quote_value

AUTO_CONF = "postgresql.auto.conf"
RECOVERY_SIGNAL = "recovery.signal"
STANDBY_SIGNAL = "standby.signal"
BLOCK_BEGIN = "# pgbackup restore: begin of the settings for recovery (pgbackup run removes them after promotion)"
BLOCK_END = "# pgbackup restore: end of the settings for recovery"

_TARGETS = {
    "immediate": "recovery_target",
    "lsn": "recovery_target_lsn",
    "name": "recovery_target_name",
    "time": "recovery_target_time",
    "xid": "recovery_target_xid",
}


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """What the block says. ``timeline`` is always a number: ``latest`` would follow whatever branch is newest.

    ``minima``: settings that must not be lower than when the WAL was written, from pg_control.
    ``without_archiving`` is for copies that must not write into their original's archive.
    """

    target: Target
    timeline: int
    restore_command: str
    end_command: str
    minima: Mapping[str, int] = field(default_factory=dict)
    without_sync_standbys: bool = False
    without_archiving: bool = False

    def values(self) -> dict[str, str]:
        """Setting -> value, in the order in which they are written."""
        # The one that is set comes last: Postgres takes an empty one after it for a second target.
        chosen = _TARGETS.get(self.target.kind, "")
        found = {name: "" for name in _TARGETS.values() if name != chosen}
        if chosen:
            found[chosen] = self.target.value
        found |= {
            "recovery_target_inclusive": "off" if self.target.exclusive else "on",
            "recovery_target_action": self.target.action,
            "recovery_target_timeline": str(self.timeline),
            "restore_command": self.restore_command,
            "recovery_end_command": self.end_command,
            "archive_cleanup_command": "",
            "recovery_min_apply_delay": "0",
            "primary_conninfo": "",
            "primary_slot_name": "",
            "hot_standby": "on" if self.target.action == "pause" else "off",
        }
        found |= {name: str(value) for name, value in self.minima.items()}
        if self.without_sync_standbys:
            found["synchronous_standby_names"] = ""
        return found

    def lasting(self) -> dict[str, str]:
        """Setting -> value, for what stays when the block is removed."""
        return {"archive_mode": "off"} if self.without_archiving else {}

    def block(self) -> str:
        """The marked block."""
        return f"{BLOCK_BEGIN}\n{_lines(self.values())}{BLOCK_END}\n"


def with_block(text: str, settings: RecoverySettings) -> str:
    """The content of postgresql.auto.conf with our block, and only one, at its end, and what lasts before it."""
    kept = without_block(text)
    if kept and not kept.endswith("\n"):
        kept += "\n"
    lasting = _lines(settings.lasting())
    return kept.removesuffix(lasting) + lasting + settings.block()


def without_block(text: str) -> str:
    """The content of postgresql.auto.conf without blocks of ours; one that has lost its end goes to the file's end."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        if line.rstrip("\r\n") == BLOCK_BEGIN:
            inside = True
        if not inside:
            kept.append(line)
        if line.rstrip("\r\n") == BLOCK_END:
            inside = False
    return "".join(kept)


def _lines(values: Mapping[str, str]) -> str:
    return "".join(f"{name} = {quote_value(value)}\n" for name, value in values.items())


def read_settings(path: Path) -> dict[str, str]:
    """The settings in one configuration file, names in lower case; includes are not followed, a missing file is empty.

    Source: the manual's chapter "Setting Parameters via the Configuration File": ``name [=] value``, quotes doubled
    or escaped inside quotes, comments after ``#``.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if name and not name.startswith("#"):
            found[name.lower()] = _value(rest.strip())
    return found


def _value(text: str) -> str:
    if not text.startswith("'"):
        return text.split("#", 1)[0].strip()
    value: list[str] = []
    position = 1
    while position < len(text):
        pair = text[position : position + 2]
        if pair == "''" or (pair[0] == "\\" and len(pair) == 2):
            value.append(pair[1])
            position += 2
            continue
        if pair[0] == "'":
            break
        value.append(pair[0])
        position += 1
    return "".join(value)
