"""Staging WAL: which tablespaces recovery will create."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pgbackup.core.catalog import Catalog
from pgbackup.core.lsn import MIB, Lsn, SegmentName
from pgbackup.core.recovery_evidence import Evidence, StopRecord
from pgbackup.core.recovery_plan import RecoveryPlan, plan_restore
from pgbackup.core.recovery_target import Target
from pgbackup.core.wal_tablespaces import CreatedTablespace
from pgbackup.engines.base import SilentProgress
from pgbackup.engines.restore.wal import WalStager
from pgbackup.engines.wal.read import WalReader
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.memory import MemoryStore
from tests.made_catalog import backup
from tests.made_wal import SYSTEM, MadeWal

CODEC = Codec(Compression("zstd", 1))
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def staged(wal: MadeWal, plan: RecoveryPlan, folder: Path) -> list[CreatedTablespace]:
    store = MemoryStore()
    for file in plan.wal:
        key = keys.wal(str(SegmentName(1, file.segment.number, MIB)), "zst")
        store.put(key, CODEC.encode(wal.segment(file.segment.number)))
    stager = WalStager(WalReader(store, CODEC, system_identifier=SYSTEM), folder, None, SilentProgress())
    stager.stage(plan, threads=2)
    return stager.created(plan)


def test_only_what_recovery_replays_counts(tmp_path: Path) -> None:
    """A backup of a standby begins in the middle of a segment, and a recovery may end in the middle of one."""
    wal = MadeWal(1)
    wal.create_tablespace(16384, "/before the backup")
    wal.fill_to(0.3)
    begin = wal.position
    wal.fill_to(0.5)
    stop = wal.position
    inside, _ = wal.create_tablespace(16385, "/inside")
    target, end = wal.commit(7, NOON)
    wal.create_tablespace(16386, "/behind the target")
    wal.switch()
    taken = backup(begin / MIB, stop / MIB)
    found = Catalog(segment_bytes=MIB, backups=(taken,), segments={1: [1]}, system_identifier=SYSTEM)
    evidence = Evidence(StopRecord(target, end, NOON))
    plan = plan_restore(found, Target("lsn", lsn=target), evidence=evidence)
    assert staged(wal, plan, tmp_path) == [CreatedTablespace(inside, 16385, "/inside")]


def test_a_record_across_the_border_of_two_segments(tmp_path: Path) -> None:
    wal = MadeWal(1)
    wal.fill_to(0.999)
    across, end = wal.create_tablespace(16384, "/" + "x" * 1000)
    while end < Lsn(2 * MIB):
        across, end = wal.create_tablespace(16385, "/" + "y" * 1000)
    assert across < Lsn(2 * MIB)
    wal.switch()
    found = Catalog(segment_bytes=MIB, backups=(backup(1.1, 1.15),), segments={1: [1, 2]}, system_identifier=SYSTEM)
    assert across in [each.lsn for each in staged(wal, plan_restore(found, Target()), tmp_path)]
