"""Turn restored files into a data directory that recovers by itself: settings, signal file, what is missing.

Everything here is written before the control file gets its name, so a directory that starts has all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pgbackup.core.backup import CONTROL_FILE, Backup
from pgbackup.core.recovery_plan import RecoveryPlan
from pgbackup.engines.restore.place import CONTROL_TEMPORARY, Claim
from pgbackup.errors import RestoreError
from pgbackup.postgres.backup_label import BACKUP_LABEL, MAX_LABEL_BYTES, label_problem
from pgbackup.postgres.data_directory import complete_structure, write_file, write_missing_configuration
from pgbackup.postgres.pg_control import ControlFile, parse_control_file
from pgbackup.postgres.recovery_settings import (
    AUTO_CONF,
    RECOVERY_SIGNAL,
    STANDBY_SIGNAL,
    RecoverySettings,
    read_settings,
    with_block,
)
from pgbackup.postgres.tablespace_map import TABLESPACE_MAP, format_tablespace_map


@dataclass(frozen=True, slots=True)
class FinishOptions:
    """The operator's switches, and what the backup knew of its server's configuration."""

    without_sync_standbys: bool = False
    without_archiving: bool = False
    saved_settings: Mapping[str, str] = field(default_factory=dict)
    original_files: Mapping[str, str] = field(default_factory=dict)


def read_restored_control(claim: Claim, backup: Backup) -> ControlFile:
    """The control file of the backup. Raises RestoreError when it is missing, damaged or another cluster's."""
    path = claim.place.directory / CONTROL_TEMPORARY
    try:
        control = parse_control_file(path.read_bytes())
    except FileNotFoundError:
        raise RestoreError(f"backup {backup.name} brought no {CONTROL_FILE}", hint=_OTHER) from None
    except ValueError as exc:
        raise RestoreError(f"{CONTROL_FILE} of backup {backup.name} is damaged", detail=str(exc), hint=_OTHER) from exc
    if backup.system_identifier and control.system_identifier != backup.system_identifier:
        raise RestoreError(
            f"{CONTROL_FILE} of backup {backup.name} belongs to cluster {control.system_identifier}",
            detail=f"its documents say {backup.system_identifier}",
            hint=_OTHER,
        )
    return control


def check_label(directory: Path, backup: Backup, control: ControlFile) -> None:
    """Without backup_label, or with another backup's, a server would start from the wrong checkpoint.

    Raises RestoreError when it is missing, or does not say where this backup began.
    """
    path = directory / BACKUP_LABEL
    if not path.is_file():
        if backup.engine == "wal-e" and control.state.startswith("shut down"):
            return
        raise RestoreError(
            f"backup {backup.name} brought no {BACKUP_LABEL}",
            detail="a server would not know where to begin its recovery",
            hint=_OTHER,
        )
    with path.open("rb") as file:
        problem = label_problem(file.read(MAX_LABEL_BYTES), backup.start_lsn)
    if problem:
        raise RestoreError(f"the {BACKUP_LABEL} of backup {backup.name} is another one's", detail=problem, hint=_OTHER)


def finish(
    claim: Claim, plan: RecoveryPlan, control: ControlFile, commands: tuple[str, str], options: FinishOptions
) -> list[str]:
    """Write all that turns the files into a cluster to recover; returns notes for people.

    ``commands``: restore_command and recovery_end_command.
    """
    directory, owner = claim.place.directory, claim.owner
    complete_files(claim)
    notes = write_missing_configuration(directory, owner, saved=options.saved_settings, original=options.original_files)
    notes += _about_settings(directory, options)
    settings = RecoverySettings(
        plan.target,
        plan.timeline,
        restore_command=commands[0],
        end_command=commands[1],
        minima=control.minima,
        without_sync_standbys=options.without_sync_standbys,
        without_archiving=options.without_archiving,
    )
    auto = directory / AUTO_CONF
    before = auto.read_text(encoding="utf-8", errors="surrogateescape") if auto.exists() else ""
    write_file(auto, with_block(before, settings), owner)
    write_file(directory / RECOVERY_SIGNAL, b"", owner)
    return notes


def complete_files(claim: Claim) -> None:
    """What makes the files of a backup a data directory in its place: every folder, and where its tablespaces are.

    A backup from a standby brings its standby.signal, with which the copy would wait for a primary.
    """
    directory, owner = claim.place.directory, claim.owner
    complete_structure(directory, owner, directory.stat().st_mode & 0o777)
    if claim.place.tablespaces:
        locations = {oid: str(path) for oid, path in claim.place.tablespaces.items()}
        write_file(directory / TABLESPACE_MAP, format_tablespace_map(locations), owner)
    (directory / STANDBY_SIGNAL).unlink(missing_ok=True)


def _about_settings(directory: Path, options: FinishOptions) -> list[str]:
    """Settings that came with the backup and may surprise."""
    found = {**read_settings(directory / "postgresql.conf"), **read_settings(directory / AUTO_CONF)}
    notes = []
    standbys = found.get("synchronous_standby_names", "")
    if standbys and not options.without_sync_standbys:
        notes.append(
            f"synchronous_standby_names is {standbys!r}: commits will wait until that standby is there "
            "(--no-sync-standby clears it)"
        )
    command = found.get("archive_command", "") or found.get("archive_library", "")
    if command and found.get("archive_mode", "off") not in ("off", "") and not options.without_archiving:
        notes.append(f"archiving is on ({command!r}): a copy that must not write there needs --no-archive")
    for name in ("data_directory", "hba_file", "ident_file"):
        if found.get(name, "").startswith("/") and not found[name].startswith(f"{directory}/"):
            notes.append(f"{name} is {found[name]!r}, outside of this directory: change it in postgresql.conf")
    return notes


_OTHER = "Restore another backup, and run `pgbackup verify` on this one."
