"""A connection string as libpq's environment variables, for programs that we start: no secret on a command line."""

from __future__ import annotations

from psycopg import pq

from pgbackup.errors import ConfigError
from pgbackup.postgres.replication import parse_conninfo

_HARMLESS = frozenset({
    "fallback_application_name", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
    "tcp_user_timeout", "replication",
})  # fmt: skip


def libpq_environment(conninfo: str, *, application_name: str) -> dict[str, str]:
    """The variables that mean the same as ``conninfo``; without a database in it, ``postgres`` unless PGDATABASE says.

    Raises ConfigError for an option that no variable stands for and that matters (``sslpassword``).
    """
    parse_conninfo(conninfo)
    found = {"PGAPPNAME": application_name}
    for option in pq.Conninfo.parse(conninfo.encode()):
        name = option.keyword.decode()
        if option.val is None or not option.val:
            if name == "dbname" and not _is_given(name):
                found["PGDATABASE"] = "postgres"
            continue
        if option.envvar is None:
            if name not in _HARMLESS:
                raise ConfigError(
                    f"{name} of PGBACKUP_DSN cannot be passed on to another program",
                    hint="libpq has no environment variable for it: use the native engine, or leave it out.",
                )
            continue
        found[option.envvar.decode()] = option.val.decode()
    return found


def _is_given(keyword: str) -> bool:
    default = next(o for o in pq.Conninfo.get_defaults() if o.keyword == keyword.encode())
    return bool(default.envvar and default.val)
