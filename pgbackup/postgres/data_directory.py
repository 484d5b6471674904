"""What a data directory needs besides its files: nobody running in it, an owner, every directory, configuration.

Used by the restore before it writes (is a server running here?) and after (what is missing?). A host's configuration
files may lie elsewhere (Debian: /etc/postgresql) and are then in no backup; a minimal set is written instead, which
lets only local users in, each as their own role.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pgbackup.storage.disk import flush_folder

SUBDIRECTORIES = (
    "pg_commit_ts", "pg_dynshmem", "pg_logical", "pg_logical/mappings", "pg_logical/snapshots", "pg_notify",
    "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat", "pg_stat_tmp", "pg_subtrans", "pg_tblspc", "pg_twophase",
    "pg_wal",
)  # fmt: skip
"""Directories that a server expects and that some backups leave out when they are empty."""

_HBA = """# Written by pgbackup restore: the original's pg_hba.conf lies outside its data directory, and in no backup.
local   all             all                                     peer
local   replication     all                                     peer
"""
_CONF_HEAD = """# Written by pgbackup restore: the original's postgresql.conf lies outside its data directory, and in no
# backup. Only local connections are taken until you say otherwise.
listen_addresses = ''
"""
CONFIGURATION_FILES = ("postgresql.conf", "pg_hba.conf", "pg_ident.conf")
_NOT_CARRIED_OVER = frozenset({"config_file", "data_directory", "external_pid_file", "hba_file", "ident_file"})


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom the files shall belong to; None where we cannot give files away, so they belong to us."""

    uid: int
    gid: int

    @classmethod
    def of(cls, directory: Path) -> Owner | None:
        """The owner of a directory, or of the nearest directory above it that exists; None unless we are root."""
        if os.geteuid() != 0:
            return None
        while not directory.exists():
            directory = directory.parent
        found = directory.stat()
        return cls(found.st_uid, found.st_gid)

    def take(self, descriptor: int) -> None:
        os.fchown(descriptor, self.uid, self.gid)


def running_server(directory: Path) -> str:
    """Words for the server that runs in a data directory, or empty when none does.

    postmaster.pid names its process; that may be invisible from another container, where the server still answers on
    its socket.
    """
    try:
        lines = (directory / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    pid = int(lines[0]) if lines and lines[0].strip().lstrip("-").isdigit() else 0
    if pid and abs(pid) not in (os.getpid(), os.getppid()) and _is_alive(abs(pid)):
        return f"process {abs(pid)}"
    if len(lines) > 4 and lines[3].strip().isdigit() and lines[4].strip():
        path = f"{lines[4].strip()}/.s.PGSQL.{lines[3].strip()}"
        if _answers(path):
            return f"the server that listens on {path}"
    return ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def write_file(path: Path, content: str | bytes, owner: Owner | None, mode: int = 0o600) -> None:
    """Write a small file durably in place of what was there, by a temporary name beside it."""
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    temporary = path.with_name(f"{path.name}.pgbackup")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        if owner is not None:
            owner.take(descriptor)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
    flush_folder(path.parent)


def make_directory(path: Path, owner: Owner | None, mode: int = 0o700) -> None:
    """Make a directory, if it is not there, with exactly this mode."""
    try:
        path.mkdir()
    except FileExistsError:
        if path.is_dir():
            return
        raise
    path.chmod(mode)
    if owner is not None:
        os.chown(path, owner.uid, owner.gid)


def complete_structure(directory: Path, owner: Owner | None, mode: int = 0o700) -> None:
    """Make the directories that every server expects."""
    for name in SUBDIRECTORIES:
        make_directory(directory / name, owner, mode)


def write_missing_configuration(
    directory: Path, owner: Owner | None, *, saved: Mapping[str, str], original: Mapping[str, str]
) -> list[str]:
    """Write the server's configuration files where they are missing; returns what was done and what to supply.

    ``saved``: the server's settings that were not the default, ``original``: where its files lay, both from the backup.
    """
    notes = []
    if not (directory / "postgresql.conf").exists():
        write_file(directory / "postgresql.conf", _minimal_configuration(saved), owner)
        supply = "supply yours, or its settings: this one listens on no address and loads no library"
        notes.append(_note("a minimal postgresql.conf", original.get("config_file", ""), supply))
    if not (directory / "pg_hba.conf").exists():
        write_file(directory / "pg_hba.conf", _HBA, owner)
        supply = "supply yours: this one lets in local users only, each as the role of that name"
        notes.append(_note("a minimal pg_hba.conf", original.get("hba_file", ""), supply))
    if not (directory / "pg_ident.conf").exists():
        write_file(directory / "pg_ident.conf", "", owner)
        supply = "supply yours where your pg_hba.conf has maps"
        notes.append(_note("an empty pg_ident.conf", original.get("ident_file", ""), supply))
    return notes


def missing_configuration(directory: Path) -> list[str]:
    """The configuration files without which a server does not start, or lets nobody in, and that are not there."""
    return [name for name in CONFIGURATION_FILES if not (directory / name).exists()]


def _minimal_configuration(saved: Mapping[str, str]) -> str:
    lines = [
        f"#{name} = '{value.replace(chr(10), ' ')}'"
        for name, value in sorted(saved.items())
        if name not in _NOT_CARRIED_OVER
    ]
    if lines:
        lines.insert(0, "\n# The original's settings that were not the default, when the backup was made:")
    return _CONF_HEAD + "\n".join(lines) + "\n"


def _note(written: str, original: str, supply: str) -> str:
    where = f", which lay at {original}," if original else ""
    return f"wrote {written}: the original{where} is not in the backup; {supply}"
