"""Every error that pgbackup raises on purpose, and the exit code that goes with it.

    PgbackupError
    ├── ConfigError            2   a setting is missing, unknown or wrong; nothing was started
    ├── StorageError           3   the object store refused or failed
    │   ├── ObjectMissing          no object has that key
    │   ├── StoreDenied            credentials or permissions
    │   │   └── DeleteRefused      objects stay: a lock, a policy, or no permission to delete
    │   ├── StoreUnavailable   *   network, throttling, 5xx
    │   └── CorruptObject          the bytes are not what their key promises
    ├── PostgresError          4   the server refused or failed
    │   ├── ConnectionLost     *   the connection broke, or the server restarts
    │   ├── SlotBusy           *   another connection streams from our slot
    │   ├── WalGone                the server no longer has the WAL that was asked for
    │   └── WrongCluster           the prefix, the timeline or the bytes belong to another cluster
    ├── ToolError              5   an external program failed
    ├── RestoreError           6   a restore cannot succeed, or was refused
    ├── BackupError            7   a base backup failed or was refused
    ├── NotInArchive          74   wal-fetch: the archive does not have it (WAL-G's code for that)
    └── CheckFailed            1   a check, a verification or a health verdict is not green

``*`` = retryable. Anything else that escapes is a bug and exits with 70. ``wal-fetch`` adds 128 to a code that is not
74, because Postgres takes every exit up to 125 for "the archive does not have it" and ends recovery early.

Grammar: the message is lower-case without a full stop, names the object, what was expected and what was found; the
hint is one sentence that says what to do next. What servers, stores and tools say of a failure ends in a full stop or
not; here it loses it, so that whoever writes on behind it needs not look.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_BUG = 70


class PgbackupError(Exception):
    """A failure that the operator can understand: message, optional detail, and what to do next."""

    exit_code: int = EXIT_BUG
    retryable: bool = False

    def __init__(self, message: str, *, detail: str = "", hint: str = "") -> None:
        self.message = _without_full_stop(message)
        super().__init__(self.message)
        self.detail = _without_full_stop(detail)
        self.hint = hint

    def __str__(self) -> str:
        text = self.message
        if self.detail:
            text += f": {self.detail}"
        return text

    def with_hint(self) -> str:
        """All that there is to say, as sentences, for logs and alerts that have one line for it."""
        return f"{self}. {self.hint}" if self.hint else str(self)


def _without_full_stop(text: str) -> str:
    """The text without what ends a sentence; an ellipsis stays."""
    text = text.rstrip()
    return text if text.endswith("..") else text.removesuffix(".")


class ConfigError(PgbackupError):
    """A setting is missing, unknown or wrong."""

    exit_code = 2


class StorageError(PgbackupError):
    """The object store refused or failed."""

    exit_code = 3


class ObjectMissing(StorageError):
    """No object has that key."""


class StoreDenied(StorageError):
    """The store knows us and says no, or does not know us."""


class DeleteRefused(StoreDenied):
    """Objects that the store keeps though they were to be removed; others of the same call may be gone."""

    def __init__(self, message: str, *, keys: tuple[str, ...] = (), detail: str = "", hint: str = "") -> None:
        super().__init__(message, detail=detail, hint=hint)
        self.keys = keys


class StoreUnavailable(StorageError):
    """The store did not answer, or answered that it cannot just now."""

    retryable = True


class CorruptObject(StorageError):
    """An object's bytes are not what its key promises: truncated, flipped, swapped or of another format."""

    def __init__(self, key: str, problem: str, *, hint: str = "") -> None:
        super().__init__(f"object {key} is damaged", detail=problem, hint=hint)
        self.key = key


class PostgresError(PgbackupError):
    """The Postgres server refused or failed."""

    exit_code = 4


class ConnectionLost(PostgresError):
    """The connection broke or could not be made; trying again may help."""

    retryable = True


class SlotBusy(PostgresError):
    """Another connection streams from our replication slot."""

    retryable = True


class WalGone(PostgresError):
    """The server has removed the WAL that was asked for."""


class WrongCluster(PostgresError):
    """The prefix, a timeline or a range of WAL bytes belongs to another cluster or another branch."""


OTHER_WRITER_HINT = (
    "Another cluster or another branch wrote here, or this server was set back to an older copy of its disk: "
    "give this server a prefix of its own. What is stored stays restorable."
)


class ToolError(PgbackupError):
    """An external program failed; detail carries its exit status and the tail of its stderr."""

    exit_code = 5


class RestoreError(PgbackupError):
    """A restore cannot succeed, or was refused; the hint says what could."""

    exit_code = 6


class BackupError(PgbackupError):
    """A base backup failed or was refused; nothing was sealed."""

    exit_code = 7


class NotInArchive(PgbackupError):
    """wal-fetch: the archive does not have that segment or history file."""

    exit_code = 74


class CheckFailed(PgbackupError):
    """A check, verification or verdict is not green."""

    exit_code = 1
