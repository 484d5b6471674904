"""The server's data directory, where this process can see it: only one that is proven to be the server's counts.

A path that the server names may exist here and be another cluster's: pg_control says whose it is.
"""

from __future__ import annotations

from pathlib import Path

from pgbackup.errors import ConfigError, PostgresError
from pgbackup.postgres.pg_control import read_control_file
from pgbackup.postgres.session import ServerFacts

NONE = "none"
_HINT = (
    "Mount the server's volume here and give its path in PGBACKUP_PGDATA, readable for the user that pgbackup runs as."
)


def visible_directory(given: str, facts: ServerFacts) -> Path | None:
    """``given``: where the operator says it is, ``none``, or empty: where the server says. None when it is not visible.

    Raises ConfigError when ``given`` is not the server's data directory or cannot be read.
    """
    named = given or facts.data_directory
    if not named or given == NONE:
        return None
    path = Path(named)
    try:
        control = read_control_file(path)
    except PostgresError as exc:
        if not given:
            return None
        raise ConfigError(
            f"{given} cannot be used as the server's data directory", detail=str(exc), hint=_HINT
        ) from exc
    if control.system_identifier != facts.system_identifier:
        if not given:
            return None
        raise ConfigError(
            f"{given} is the data directory of another cluster",
            detail=f"its system identifier is {control.system_identifier}, the server's is {facts.system_identifier}",
            hint=_HINT,
        )
    return path.absolute()
