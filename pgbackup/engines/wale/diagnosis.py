"""From how a tool ended to an error that says what to do: exit status, its last words, and the cause where it is known.

Pure. The patterns are words of WAL-E 1.1.1, WAL-G 3.x, psql, GnuPG and the server as they appear on stderr.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from pgbackup.engines.wale.tool import Outcome
from pgbackup.errors import ToolError

_SHOWN_LINES = 8
_SHOWN_CHARACTERS = 2000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class _Cause:
    """A known failure: what of stderr shows it, its name and what to do; ``passing``: it may go away by itself."""

    pattern: re.Pattern[str]
    name: str
    hint: str
    passing: bool = False


def _cause(pattern: str, name: str, hint: str, *, passing: bool = False) -> _Cause:
    return _Cause(re.compile(pattern, re.IGNORECASE | re.DOTALL), name, hint, passing)


IN_BACKUP_MODE = "the server is in backup mode already"
WAL_E_TOO_OLD = (
    "WAL-E calls the exclusive backup functions, which PostgreSQL 15 removed. Use PGBACKUP_ENGINE=native or wal-g, "
    "which go on in the same prefix."
)
_CAUSES = (
    _cause(
        r"(could not run one or more external programs|could not run the following programs|command not found"
        r"|executable file not found).*?\b(?P<program>lzop|pv|psql|gpg|pg_config)\b",
        "{program} is missing",
        "Install {program} where pgbackup runs.",
    ),
    _cause(r"function pg_start_backup\(.*does not exist", "PostgreSQL 15 and later cannot be backed up", WAL_E_TOO_OLD),
    _cause(r"function pg_stop_backup\(.*does not exist", "PostgreSQL 15 and later cannot be backed up", WAL_E_TOO_OLD),
    _cause(
        r"invalid tar header",
        "it cannot read what PostgreSQL 15 and later stream",
        "wal-g 3.0.9 and later can. An older one needs PGBACKUP_PGDATA, the data directory as this machine sees it.",
    ),
    _cause(
        r"a backup is already in progress",
        IN_BACKUP_MODE,
        "Another exclusive backup runs, or was killed: when none runs, SELECT pg_stop_backup() as a superuser.",
        passing=True,
    ),
    _cause(
        r"permission denied for function (?P<function>pg_\w+)",
        "the role may not call {function}",
        "As a superuser: GRANT EXECUTE ON FUNCTION {function} TO the role, or give the tool a role that may.",
    ),
    _cause(
        r"gpg.*(no public key|no secret key|skipped: |unusable public key|encryption failed|decryption failed)",
        "GnuPG has not got the key",
        "Import the key into the keyring of the user that pgbackup runs as (GNUPGHOME says where it is).",
    ),
    _cause(
        r"(no module named|modulenotfounderror|importerror)[^\n]*",
        "its Python environment is not whole",
        "Install it anew in a virtual environment of its own: its S3 backend needs boto 2, and Python 3.11 or older.",
    ),
    _cause(
        r"(aws access key credential is required|aws secret key credential is required|no storage prefix defined"
        r"|failed to find any configured storage|nocredentialproviders)",
        "it has no credentials or no place for the store",
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_INSTANCE_PROFILE=1 for WAL-E on EC2.",
    ),
    _cause(
        r"(could not connect to server|connection to server .* failed|connection refused|no pg_hba.conf entry"
        r"|password authentication failed|could not execute a query successfully via psql)",
        "it cannot reach the server",
        "It gets PGBACKUP_DSN as libpq's variables; see with psql whether those work from here.",
        passing=True,
    ),
    _cause(
        r"(no space left on device|disk quota exceeded)",
        "a disk is full",
        "Free space where TMPDIR points.",
        passing=True,
    ),
    _cause(r"permission denied", "it may not read or write a file", "Run pgbackup as the owner of the data directory."),
)


def explain(tool: str, words: list[str], outcome: Outcome) -> ToolError:
    """The error for a run that did not end well. ``words``: its arguments."""
    cause = None if outcome.ending != "exit" else _known(outcome.stderr)
    message = f"{tool} {words[0]} {_ended(outcome)}"
    hint = "Run the same command by hand to see more."
    if outcome.stderr.strip():
        hint = f"The words above are the tool's own. {hint}"
    if cause is not None:
        found, match = cause
        named = {name: value or "" for name, value in match.groupdict().items()}
        message += f": {found.name.format(**named)}"
        hint = found.hint.format(**named)
    error = ToolError(message, detail=last_words(outcome.stderr), hint=hint)
    error.retryable = cause is None or cause[0].passing
    return error


def last_words(stderr: str) -> str:
    """The end of what a tool said, for people: a few lines, without control characters."""
    lines = [_CONTROL.sub("", line).rstrip() for line in stderr.splitlines()]
    text = "\n  ".join([line for line in lines if line][-_SHOWN_LINES:])[-_SHOWN_CHARACTERS:]
    return f"\n  {text}" if text else "it said nothing"


def _known(stderr: str) -> tuple[_Cause, re.Match[str]] | None:
    for cause in _CAUSES:
        if match := cause.pattern.search(stderr):
            return cause, match
    return None


def _ended(outcome: Outcome) -> str:
    if outcome.ending == "timeout":
        return f"did not end within {outcome.seconds:.0f} s and was ended"
    if outcome.ending == "stop":
        return "was stopped"
    if outcome.status < 0:
        try:
            name = signal.Signals(-outcome.status).name
        except ValueError:
            name = f"signal {-outcome.status}"
        return f"was killed by {name}"
    if outcome.status in (126, 127):
        return f"could not be started (exit {outcome.status})"
    return f"failed (exit {outcome.status})"
