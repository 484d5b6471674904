"""What the model and the codec refuse of settings that could be read, as problems."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import SecretStr, ValidationError

from pgbackup.config.problems import PREFIX, Problem
from pgbackup.config.sources import Read
from pgbackup.errors import ConfigError


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


def from_key_check(
    key: SecretStr, transform: str, check_key: Callable[[str, str], object], origin: str
) -> list[Problem]:
    """What the codec says of the encryption key: a key that cannot be used must stop everything (never plaintext)."""
    where = f" (from {origin})" if origin.startswith("WALG_") else ""
    try:
        check_key(key.get_secret_value(), transform)
    except (ConfigError, ValueError) as exc:
        return [Problem("encryption_key", f"cannot be used{where}: {exc}")]
    return []


def from_raw_key(read: Read, refused: set[str], check_key: Callable[[str, str], object]) -> list[Problem]:
    """What the codec says of the key where the model refused other settings: all problems are told together."""
    text, transform = read.value("encryption_key", ""), read.value("encryption_key_transform", "none")
    if not text or refused & {"encryption_key", "encryption_key_transform"}:
        return []
    return from_key_check(SecretStr(text), transform.strip().lower(), check_key, read.origins()["encryption_key"])
