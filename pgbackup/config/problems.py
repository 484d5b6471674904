"""What is wrong with a configuration, all of it at once: ``PGBACKUP_X: problem (got 'value')``; never a secret's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pgbackup.config.repository_url import redact_url
from pgbackup.errors import ConfigError

PREFIX = "PGBACKUP_"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem; ``setting`` is empty when the text names its subject itself; ``got`` is never a secret."""

    setting: str
    text: str
    got: str | None = None
    place: str = ""

    def __str__(self) -> str:
        subject = f"{variable_name(self.setting)}: " if self.setting else ""
        place = f" in {self.place}" if self.place else ""
        found = f" (got {redact_url(self.got)!r}{place})" if self.got is not None else ""
        return f"{subject}{self.text}{found}"


def variable_name(setting: str) -> str:
    """``wal_flush_interval`` as ``PGBACKUP_WAL_FLUSH_INTERVAL``."""
    return PREFIX + setting.upper()


def config_error(problems: Iterable[Problem]) -> ConfigError:
    """One error for all of them, a line each when there are several."""
    lines = [str(problem) for problem in problems]
    if len(lines) == 1:
        return ConfigError(lines[0])
    return ConfigError(f"{len(lines)} problems with the configuration", detail="".join(f"\n  {line}" for line in lines))
