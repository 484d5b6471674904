"""The seal: what makes a finished copy a backup, by the process that copied or by one after it.

Only when the WAL that makes the copy consistent is in the repository, and the folder holds exactly what was uploaded,
by name and size, are metadata.json and then the sentinel written. Until then the plan lies in the intent: whoever
comes later finishes it instead of copying again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from pgbackup.core.backup import Tablespace
from pgbackup.core.lsn import Lsn
from pgbackup.engines.backup.intent import OwnIntent, StoredIntent, read_intents, store_clock
from pgbackup.engines.base import StopSignal
from pgbackup.engines.presence.owner import Owner
from pgbackup.engines.wal.bucket_wal import BucketWal
from pgbackup.errors import BackupError, CorruptObject, PgbackupError
from pgbackup.repository import keys
from pgbackup.repository.documents import BackupDocuments, BackupExtras
from pgbackup.repository.part_sizes import part_sizes
from pgbackup.storage.base import ObjectStore

_SHOWN = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SealPlan:
    """The documents of a copied backup, and every object of its folder with its size."""

    backup: str
    documents: BackupDocuments
    objects: Mapping[str, int]

    def document(self) -> dict[str, Any]:
        """As it is stored in the intent."""
        fields = asdict(self.documents)
        fields["started"] = self.documents.started.isoformat()
        fields["finished"] = self.documents.finished.isoformat()
        return {"documents": fields, "objects": dict(self.objects)}

    @classmethod
    def parse(cls, backup: str, key: str, seal: Mapping[str, Any]) -> SealPlan:
        """From an intent. Raises CorruptObject."""
        try:
            fields = dict(seal["documents"])
            fields["start_lsn"], fields["finish_lsn"] = Lsn(fields["start_lsn"]), Lsn(fields["finish_lsn"])
            fields["started"] = datetime.fromisoformat(fields["started"])
            fields["finished"] = datetime.fromisoformat(fields["finished"])
            fields["tablespaces"] = tuple(Tablespace(**space) for space in fields["tablespaces"])
            fields["extras"] = BackupExtras(**fields["extras"])
            objects = {str(name): int(size) for name, size in seal["objects"].items()}
            return cls(backup, BackupDocuments(**fields), objects)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise CorruptObject(key, f"its seal cannot be read ({exc})") from exc


def write_seal(store: ObjectStore, plan: SealPlan, intent: OwnIntent, *, wal_tail: bool) -> None:
    """Write metadata.json and the sentinel. Raises BackupError when the folder is not what was uploaded, or when the
    name was sealed by somebody else."""
    documents = replace(plan.documents, extras=replace(plan.documents.extras, wal_tail=wal_tail))
    compare_folder(store, plan)
    intent.update()
    # Not conditional: one that was written before an interruption may lack what is known now.
    store.put(keys.metadata(plan.backup), documents.metadata(part_sizes(plan.objects)))
    sentinel, key = documents.sentinel(), keys.sentinel(plan.backup)
    if not store.put_if_absent(key, sentinel) and store.get(key) != sentinel:
        raise BackupError(
            f"backup {plan.backup} was sealed by somebody else", hint="Nothing of it was changed; take another backup."
        )


def is_sealed(store: ObjectStore, backup: str) -> bool:
    return store.head(keys.sentinel(backup)) is not None


def compare_folder(store: ObjectStore, plan: SealPlan) -> None:
    """The folder must hold what was uploaded and nothing else: a restore reads all of it. Raises BackupError."""
    metadata = keys.metadata(plan.backup)
    found = {i.key: i.size_bytes for i in store.list(keys.backup_folder(plan.backup)) if i.key != metadata}
    if found == plan.objects:
        return
    problems = [f"{key} is missing" for key in plan.objects if key not in found]
    problems += [f"{key} is not of this backup" for key in found if key not in plan.objects]
    problems += [
        f"{key} has {found[key]} bytes, not {size}"
        for key, size in plan.objects.items()
        if key in found and found[key] != size
    ]
    raise BackupError(
        f"the folder of {plan.backup} does not hold what was uploaded",
        detail="; ".join(sorted(problems)[:_SHOWN]),
        hint="Find out who else writes to this prefix, then start the backup again.",
    )


def resume_seals(store: ObjectStore, host: str, stop: StopSignal, *, stalled_seconds: float = 60) -> list[str]:
    """Seal copies that were complete when their process ended, once their WAL is here. Returns the names sealed.

    One whose WAL does not come within ``stalled_seconds`` stays as it is, for the next time.
    """
    sealed = []
    now = store_clock(store)
    for found in read_intents(store):
        if stop.is_set():
            break
        # A copied backup may be sealed by any machine: nothing of it changes any more.
        if found.intent.seal is None or found.life(host, now) == "alive":
            continue
        try:
            if _resume(store, found, host, stop, stalled_seconds):
                sealed.append(found.intent.backup)
        except (BackupError, CorruptObject) as exc:
            _log.warning("backup %s cannot be sealed yet: %s", found.intent.backup, exc)
    return sealed


def _resume(store: ObjectStore, found: StoredIntent, host: str, stop: StopSignal, stalled_seconds: float) -> bool:
    plan = SealPlan.parse(found.intent.backup, found.key, found.intent.seal or {})
    owner = Owner.new(host)
    intent = OwnIntent.take_over(store, found, owner)
    if intent is None:
        owner.retire()
        return False
    try:
        if is_sealed(store, plan.backup):
            intent.remove()
            return False
        documents = plan.documents
        extras, timeline = documents.extras, documents.timeline
        wal = BucketWal(store, stalled_seconds=stalled_seconds)
        wal.begin(timeline, documents.start_lsn, extras.segment_bytes)
        tail = wal.wait_for(timeline, documents.finish_lsn, extras.segment_bytes, stop, tail_counts=extras.standby)
        write_seal(store, plan, intent, wal_tail=tail)
        intent.remove()
    except PgbackupError:
        intent.leave()
        raise
    _log.info("sealed backup %s, which an earlier process had copied", plan.backup)
    return True
