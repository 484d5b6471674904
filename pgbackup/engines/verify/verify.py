"""``verify``: read a base backup and its WAL back from the store, and say exactly what is damaged or missing.

Nothing is believed that was not read: not the listing, not what a job returned. The report names objects by their keys.
"""

from __future__ import annotations

from typing import Literal

from pgbackup.core.backup import Backup
from pgbackup.core.backup_chain import BrokenChain
from pgbackup.core.catalog import Catalog
from pgbackup.core.health_backups import done_at
from pgbackup.engines.base import ProgressSink, StopSignal
from pgbackup.engines.restore.chain import load_lists
from pgbackup.engines.verify.files import FilesCheck
from pgbackup.engines.verify.listed import ListedFiles
from pgbackup.engines.verify.report import CheckedWal, Finding, Findings, VerifyReport
from pgbackup.engines.verify.wal import WalCheck
from pgbackup.engines.verify.workers import Interrupted, Workers
from pgbackup.errors import CheckFailed
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec
from pgbackup.repository.walg_file_table import WalgFileTable
from pgbackup.storage.base import ObjectStore

__all__ = ["Finding", "VerifyReport", "WalScope", "choose_backup", "verify_backup"]

WORKERS = 2
WalScope = Literal["all", "needed", "none"]


def verify_backup(
    store: ObjectStore,
    codec: Codec,
    catalog: Catalog,
    backup: Backup,
    *,
    progress: ProgressSink,
    wal: WalScope = "all",
    stop: StopSignal | None = None,
) -> VerifyReport:
    """Read everything that a restore of ``backup`` may need.

    ``wal``: "all" that goes on from it without a hole, on every timeline; what is "needed" to make it consistent; or
    "none". Damage is reported, never raised; a store that does not answer raises, and so does a ``stop`` (CheckFailed).
    """
    try:
        return _verify(store, codec, catalog, backup, progress, wal, Workers(WORKERS, stop))
    except Interrupted:
        raise CheckFailed(f"the verification of {backup.name} was stopped") from None


def _verify(
    store: ObjectStore,
    codec: Codec,
    catalog: Catalog,
    backup: Backup,
    progress: ProgressSink,
    wal: WalScope,
    workers: Workers,
) -> VerifyReport:
    findings = Findings()
    if problem := backup.problem or catalog.why_misplaced(backup):
        findings.add("damaged", keys.sentinel(backup.name), problem)
    findings.count(objects=1)
    _check_files(store, codec, catalog, backup, findings, workers, progress)
    checked: tuple[CheckedWal, ...] = ()
    if wal != "none" and backup.stop_lsn:
        checked = WalCheck(store, codec, catalog, backup, findings, wal == "needed").run(workers, progress)
    for path in backup.corrupt_files:
        problem = f"the server found damaged pages in its file {path!r}: they were damaged when the backup was taken"
        findings.add("damaged", keys.backup_folder(backup.name), problem)
    return findings.report(backup.name, checked)


def _check_files(
    store: ObjectStore,
    codec: Codec,
    catalog: Catalog,
    backup: Backup,
    findings: Findings,
    workers: Workers,
    progress: ProgressSink,
) -> None:
    """All objects of a backup; of a delta, those of every backup that it builds on, too."""
    try:
        chain = catalog.chain(backup)
    except BrokenChain as exc:
        findings.add("missing", keys.sentinel(backup.name), str(exc))
        chain = (backup,)
    if backup.engine != "wal-g":
        FilesCheck(store, codec, backup, findings).run(workers, progress)
        return
    with WalgFileTable() as table:
        with findings.catching(keys.files_metadata(backup.name)):
            load_lists(store, table, chain)
            table.choose(len(chain) - 1)
        for level, each in enumerate(chain):
            FilesCheck(store, codec, each, findings, ListedFiles(table, level)).run(workers, progress)


def choose_backup(catalog: Catalog, name: str | None) -> Backup:
    """The backup with that name, or the newest. Raises CheckFailed when there is none."""
    if name is None:
        if not catalog.backups:
            raise CheckFailed("the repository holds no backup", hint="Take one with `pgbackup backup`.")
        return max(catalog.backups, key=lambda b: (done_at(b), b.name))
    found = catalog.backup(name)
    if found is None:
        known = ", ".join(sorted(backup.name for backup in catalog.backups)[-3:]) or "none"
        raise CheckFailed(f"the repository has no backup {name}", hint=f"The newest ones are {known}.")
    return found
