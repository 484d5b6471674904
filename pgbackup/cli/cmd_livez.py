"""``pgbackup livez``: asks the `pgbackup run` on this machine whether it lives; for health checks and probes.

Asked every few seconds for years, inside the memory limit of the process that it asks: so it imports nothing heavy, and
reads the one setting that it needs instead of all of them.
"""

from __future__ import annotations

import http.client
import os
import tomllib
from pathlib import Path

import click

from pgbackup.cli.output import say
from pgbackup.config.listen import DEFAULT_LISTEN, ListenAddress, parse_listen
from pgbackup.config.sources import config_file
from pgbackup.errors import CheckFailed, ConfigError

_MAX_ANSWER_BYTES = 4096


@click.command("livez")
@click.option("--timeout", type=click.FloatRange(0.1, 60), default=4.0, show_default=True, help="Seconds to wait.")
@click.pass_context
def command(ctx: click.Context, *, timeout: float) -> None:
    """Ask /livez of the `pgbackup run` on this machine: exit 0 when it lives, 1 when it hangs or does not answer.

    Finds it by the same settings: PGBACKUP_HTTP, or http in the TOML file.
    """
    flags = ctx.parent.params if ctx.parent is not None else {}
    listen = _listen(flags.get("http"), flags.get("config_file"))
    status, text = _ask(listen, timeout)
    if status != http.client.OK:
        raise CheckFailed(f"pgbackup at {listen} is not alive", detail=text)
    say(text)


def _listen(flag: str | None, given: Path | None) -> ListenAddress:
    """Where `run` listens. Raises ConfigError when that is nowhere."""
    text = flag or os.environ.get("PGBACKUP_HTTP") or _from_file(config_file(os.environ, given)) or DEFAULT_LISTEN
    try:
        listen = parse_listen(text)
    except ValueError as exc:
        raise ConfigError(f"PGBACKUP_HTTP: {exc}") from exc
    if listen is None:
        raise ConfigError("PGBACKUP_HTTP is off: nobody answers", hint="Set it, or take the health check away.")
    return listen


def _from_file(path: Path | None) -> str:
    """The setting in the TOML file; empty when it is not there. Whether the file is right, `run` has said."""
    if path is None:
        return ""
    try:
        return str(tomllib.loads(path.read_text("utf-8")).get("http", ""))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError(f"{path}: the configuration file cannot be read", detail=str(exc)) from exc


def _ask(listen: ListenAddress, timeout: float) -> tuple[int, str]:
    """Status and text of the answer. Raises CheckFailed when there is none."""
    connection = http.client.HTTPConnection(listen.reachable_host, listen.port, timeout=timeout)
    try:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        return answer.status, " ".join(answer.read(_MAX_ANSWER_BYTES).decode(errors="replace").split())
    except (OSError, http.client.HTTPException) as exc:
        raise CheckFailed(f"no pgbackup answers at {listen}", detail=str(exc) or type(exc).__name__) from exc
    finally:
        connection.close()
