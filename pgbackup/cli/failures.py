"""From an exception to what the operator sees: text on stderr, an object on stdout with ``--json``, an exit code."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

import click

from pgbackup.cli.output import json_was_emitted, say, say_document
from pgbackup.errors import EXIT_BUG, NotInArchive, PgbackupError

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
FATAL_TO_POSTGRES = 126
"""restore_command exits of this and above end the server's start; Postgres takes smaller ones for "not there"."""

_SECRET_VARIABLES = (
    "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGBACKUP_ENCRYPTION_KEY", "WALG_LIBSODIUM_KEY",
    "WALG_PGP_KEY", "WALG_PGP_KEY_PASSPHRASE", "WALG_ENVELOPE_PGP_KEY", "WALG_S3_SSE_C", "S3_SSE_C", "WALE_S3_SSE_C",
)  # fmt: skip


def report(exc: BaseException, args: Sequence[str], context: click.Context | None) -> int:
    """Tell what happened and return the exit code. SystemExit goes on."""
    if isinstance(exc, SystemExit):
        raise exc
    if isinstance(exc, PgbackupError):
        _print_error(exc)
        _print_json(exc, args, context)
        return exc.exit_code
    if isinstance(exc, click.ClickException):
        exc.show()
        _print_json(PgbackupError(exc.format_message()), args, context, kind="UsageError", code=EXIT_USAGE)
        return EXIT_USAGE
    if isinstance(exc, KeyboardInterrupt | click.Abort):
        _say("pgbackup: interrupted")
        return EXIT_INTERRUPTED
    if isinstance(exc, BrokenPipeError):
        _give_up_stdout()
        return EXIT_BROKEN_PIPE
    _say("".join(traceback.format_exception(exc)).rstrip(), indent=0)
    _say("pgbackup: error: this is a bug in pgbackup; please report it with the lines above")
    bug = PgbackupError(f"{type(exc).__name__}: {exc}")
    _print_json(bug, args, context, kind="Bug", code=EXIT_BUG)
    return EXIT_BUG


def final_code(code: int, args: Sequence[str]) -> int:
    """The code to exit with. Any mention of wal-fetch counts: even a mistyped flag must not end a recovery early."""
    if "wal-fetch" in args and code not in (0, NotInArchive.exit_code) and code < FATAL_TO_POSTGRES:
        return code + 128
    return code


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence, or nothing."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else ""


def secrets_of(environ: Mapping[str, str]) -> list[str]:
    """Secrets in variables, known before the settings are read, and those that are not settings at all."""
    from pgbackup.config.dsn import passwords

    found = [environ[name] for name in _SECRET_VARIABLES if environ.get(name)]
    for name in ("PGBACKUP_DSN", "PGBACKUP_ADMIN_DSN"):
        found += passwords(environ.get(name, ""))
    return found


def _print_error(exc: PgbackupError) -> None:
    _say(f"pgbackup: error: {exc}".replace(": \n", ":\n"))
    if exc.hint:
        _say(f"hint: {exc.hint}")


def _print_json(
    exc: PgbackupError, args: Sequence[str], context: click.Context | None, *, kind: str = "", code: int | None = None
) -> None:
    """With ``--json``, one document on stdout in any case: the error, unless the command has printed its own."""
    if "--json" not in args or json_was_emitted(context):
        return
    error = {
        "kind": kind or type(exc).__name__,
        "message": exc.message,
        "detail": exc.detail.strip(),
        "hint": exc.hint,
        "retryable": exc.retryable,
        "exit_code": exc.exit_code if code is None else code,
    }
    say_document(_redact(json.dumps({"error": error}, indent=2, ensure_ascii=False)))


def _say(text: str, *, indent: int = 2) -> None:
    try:
        say(_redact(text), err=True, indent=indent)
    except OSError:
        return


def _redact(text: str) -> str:
    from pgbackup.logs import redact

    return redact(text)


def _give_up_stdout() -> None:
    """Whoever read our output has gone: keep the interpreter from complaining when it flushes at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
