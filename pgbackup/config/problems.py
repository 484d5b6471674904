"""What is wrong with a configuration, all of it at once: ``PGBACKUP_X: problem (got 'value')``; never a secret's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgbackup.config.repository_url import redact_url
from pgbackup.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from pgbackup.config.settings import Settings
    from pgbackup.config.sources import Read

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


def from_validation(exc: ValidationError, read: Read, secrets: frozenset[str]) -> list[Problem]:
    """The problems that the model found, with the text that was given."""
    found = []
    given = {name: value for layer in reversed(read.layers) for name, value in layer.values.items()}
    origins = read.origins()
    for error in exc.errors(include_url=False, include_input=False):
        name = str(error["loc"][0]) if error["loc"] else ""
        if any(problem.setting == name for problem in read.problems):
            continue
        cause = error.get("ctx", {}).get("error")
        text = str(cause) if cause is not None else error["msg"][:1].lower() + error["msg"][1:]
        origin = origins.get(name, "")
        place = origin if origin and not origin.startswith((PREFIX, "--")) else ""
        found.append(Problem(name, text, None if name in secrets else given.get(name), place))
    return found


def from_key_check(settings: Settings, check_key: Callable[[str, str], object], origin: str) -> list[Problem]:
    """What the codec says of the encryption key: a key that cannot be used must stop everything (never plaintext)."""
    assert settings.encryption_key is not None
    where = f" (from {origin})" if origin.startswith("WALG_") else ""
    try:
        check_key(settings.encryption_key.get_secret_value(), settings.encryption_key_transform)
    except (ConfigError, ValueError) as exc:
        return [Problem("encryption_key", f"cannot be used{where}: {exc}")]
    return []


def config_error(problems: Iterable[Problem]) -> ConfigError:
    """One error for all of them, a line each when there are several."""
    lines = [str(problem) for problem in problems]
    if len(lines) == 1:
        return ConfigError(lines[0])
    return ConfigError(f"{len(lines)} problems with the configuration", detail="".join(f"\n  {line}" for line in lines))
