"""The failure of a base backup that the next try may not have."""

from __future__ import annotations

from pgbackup.errors import BackupError

_AGAIN = "Start the backup again."


def passing_failure(message: str, *, detail: str = "", hint: str = _AGAIN) -> BackupError:
    """A BackupError that is worth another try."""
    error = BackupError(message, detail=detail, hint=hint)
    error.retryable = True
    return error
