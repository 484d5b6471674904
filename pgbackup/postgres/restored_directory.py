"""After a restored server was promoted: the settings that its recovery needed are taken out of its data directory.

Only where the directory is on this machine, ours to write, and certainly that server's; a sidecar that sees no data
directory leaves it, and the next restore overrides what is left.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from pgbackup.errors import PgbackupError
from pgbackup.postgres.pg_control import read_control_file
from pgbackup.postgres.recovery_settings import without_block
from pgbackup.postgres.session import ServerFacts

_log = logging.getLogger(__name__)


def tidy_restored_directory(facts: ServerFacts) -> bool:
    """Remove the marked block of recovery settings and staged WAL. Returns whether there was something to remove.

    Never raises for a directory that cannot be seen or changed: nothing depends on it.
    """
    directory = Path(facts.data_directory)
    settings = directory / "postgresql.auto.conf"
    if facts.in_recovery or not facts.data_directory or not os.access(settings, os.R_OK | os.W_OK):
        return False
    try:
        if read_control_file(directory).system_identifier != facts.system_identifier:
            return False
        text = settings.read_text(encoding="utf-8", errors="surrogateescape")
        rest = without_block(text)
        if rest == text:
            return False
        _replace(settings, rest)
        shutil.rmtree(directory / "pgbackup_wal", ignore_errors=True)
    except (OSError, PgbackupError) as exc:
        _log.warning("settings of the restore could not be removed from %s: %s", settings, exc)
        return False
    _log.info("removed the settings of the restore from %s", settings)
    return True


def _replace(path: Path, text: str) -> None:
    """Write the file anew beside the old one, with its owner and mode, and put it in its place."""
    before = path.stat()
    new = path.with_name(path.name + ".pgbackup")
    with new.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.chmod(before.st_mode & 0o7777)
    if os.geteuid() == 0:
        os.chown(new, before.st_uid, before.st_gid)
    new.replace(path)
