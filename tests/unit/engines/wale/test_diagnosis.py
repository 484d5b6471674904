"""What a tool said becomes an error that names the cause and what to do."""

from __future__ import annotations

import pytest

from pgbackup.engines.wale.diagnosis import explain, last_words
from pgbackup.engines.wale.tool import Outcome


def outcome(stderr: str, *, status: int = 1, ending: str = "exit") -> Outcome:
    return Outcome(status, ending, "", stderr, 2.0, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stderr", "message", "hint", "retryable"),
    [
        (
            "ERROR    MSG: could not run one or more external programs WAL-E depends upon\n"
            "        DETAIL: Could not run the following programs, are they installed? lzop, pv",
            "lzop is missing", "Install lzop", False,
        ),
        ("Could not run the following programs, are they installed? psql", "psql is missing", "Install psql", False),
        (
            "ERROR:  function pg_start_backup(unknown) does not exist\nERROR MSG: Could not stop hot backup",
            "PostgreSQL 15 and later cannot be backed up", "native or wal-g", False,
        ),
        ("ERROR: archive/tar: invalid tar header", "what PostgreSQL 15 and later stream", "3.0.9", False),
        ("gpg: X: skipped: No public key\ngpg: lost", "GnuPG has not got the key", "keyring", False),
        ("gpg: decryption failed: No secret key", "GnuPG has not got the key", "keyring", False),
        ("ERROR:  permission denied for function pg_start_backup", "may not call pg_start_backup", "GRANT", False),
        ("ERROR:  a backup is already in progress", "backup mode already", "pg_stop_backup", True),
        ("ModuleNotFoundError: No module named 'boto'", "Python environment is not whole", "virtual", False),
        ("psql: error: connection to server on socket failed: No", "cannot reach the server", "PGBACKUP_DSN", True),
        ("OSError: [Errno 28] No space left on device", "a disk is full", "TMPDIR", True),
        ("something else", r"failed \(exit 1\)$", "by hand", True),
    ],
)  # fmt: skip
def test_known_failures_are_named(stderr: str, message: str, hint: str, retryable: bool) -> None:
    error = explain("wal-e", ["backup-push"], outcome(stderr))
    with pytest.raises(type(error), match=message):
        raise type(error)(error.message)
    assert error.message.startswith("wal-e backup-push failed (exit 1)")
    assert hint in error.hint
    assert error.retryable is retryable
    assert error.exit_code == 5
    assert stderr.splitlines()[-1].strip() in error.detail


@pytest.mark.parametrize(
    ("status", "ending", "message"),
    [
        (-9, "exit", "was killed by SIGKILL"),
        (-15, "timeout", "did not end within 2 s and was ended"),
        (-15, "stop", "was stopped"),
        (127, "exit", "could not be started (exit 127)"),
        (-99, "exit", "was killed by signal 99"),
    ],
)
def test_how_it_ended(status: int, ending: str, message: str) -> None:
    assert message in explain("wal-g", ["wal-push"], outcome("", status=status, ending=ending)).message


def test_last_words_are_few_and_clean() -> None:
    text = last_words("\n".join(f"line {n} \x1b[31m\x00" for n in range(100)))
    assert text.splitlines()[0] == ""
    assert [line.strip() for line in text.splitlines()[1:]] == [f"line {n} [31m" for n in range(92, 100)]
    assert len(last_words("x" * 100_000)) < 2100
    assert last_words("") == "it said nothing"
