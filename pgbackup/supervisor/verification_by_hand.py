"""The record of a verification that somebody started by hand: only what `pgbackup run` could have found as well.

What cannot be recorded is refused before hours of reading. What only this installation cannot read must not become an
alarm, and a note of ours must not lie among the objects of others.
"""

from __future__ import annotations

from contextlib import suppress

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.engines.check.store import FOLDER
from pgbackup.engines.verify.verify import VerifyReport, choose_backup
from pgbackup.errors import CheckFailed, StoreDenied
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec
from pgbackup.repository.key_check import check_key
from pgbackup.storage.base import ObjectStore
from pgbackup.supervisor.verification_record import Begun, is_gone, record_verification


def check_may_record(store: ObjectStore, codec: Codec, catalog: Catalog, backup: Backup, begun: Begun) -> None:
    """Raises CheckFailed or ConfigError where the verdict could not be recorded, StoreDenied without the permission."""
    if catalog.system_identifier is None or store.head(keys.KEY_CHECK) is None:
        raise CheckFailed(
            "pgbackup run has not begun in this repository, so nobody judges by what is recorded there",
            hint="Leave out --record.",
        )
    check_key(store, codec)
    if backup.needs:
        raise CheckFailed(f"backup {backup.name} cannot be read here: {backup.problem}", hint=backup.needs)
    newest = choose_backup(catalog, None)
    if begun.known is None and backup is not newest:
        raise CheckFailed(
            f"the newest backup, {newest.name}, was never verified, so an older one has nothing to stand beside",
            hint="Run `pgbackup verify --record` without --backup first.",
        )
    _check_may_write(store)


def record_by_hand(store: ObjectStore, catalog: Catalog, report: VerifyReport, begun: Begun) -> None:
    """Record it. Raises CheckFailed when it is not recorded, and what the store raises."""
    if is_gone(store, report):
        raise CheckFailed(
            f"backup {report.backup} was removed while it was verified, so nothing is recorded",
            hint="See `pgbackup list` for what is left, and verify that.",
        )
    if report.findings and all(finding.kind == "unreadable" for finding in report.findings):
        raise CheckFailed("not recorded: what was found can only not be read by this installation")
    run = record_verification(store, catalog, report, begun)
    if run is None:
        raise CheckFailed("not recorded: there is no verdict of the newest backup that it could stand beside")
    if report.ok and report.backup in run.damaged:
        raise CheckFailed(
            f"another verification that ended meanwhile found backup {report.backup} damaged, and that stands",
            hint="Run it again: what is read from now on counts.",
        )


def _check_may_write(store: ObjectStore) -> None:
    """Better refused now than after hours of reading. A store that keeps the test object keeps one."""
    key = f"{FOLDER}verify"
    store.put(key, b"")
    with suppress(StoreDenied):
        store.delete([key])
