"""Restore: plan from what the repository shows, then fill a directory that recovers to the target by itself.

The order makes a half-restored directory harmless: refuse what cannot work, mark the directories, write and check the
files, stage the WAL, write the settings, flush everything, and only then give the control file its name. A restore
that is interrupted anywhere is repeated by calling it again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from pgbackup.core.backup import Backup, Tablespace
from pgbackup.core.catalog import Catalog
from pgbackup.core.recovery_choice import candidates, chosen_by_name
from pgbackup.core.recovery_plan import STAGED_LIMIT_BYTES, RecoveryPlan, path_of, plan_restore
from pgbackup.core.recovery_target import Target
from pgbackup.engines.base import ProgressSink, SilentProgress
from pgbackup.engines.port import Engine
from pgbackup.engines.restore.chain import BackupChain
from pgbackup.engines.restore.commands import END_COMMAND, STAGED_COMMAND, on_demand_command, secrets_needed
from pgbackup.engines.restore.damage import damage_advised
from pgbackup.engines.restore.disk_error import disk_errors
from pgbackup.engines.restore.facts import probe_open_end, probe_start, read_bookkeeping
from pgbackup.engines.restore.fetched import place_fetched
from pgbackup.engines.restore.files import DataFiles, Source, is_left_out
from pgbackup.engines.restore.finish import (
    FinishOptions,
    check_label,
    complete_files,
    finish,
    read_restored_control,
)
from pgbackup.engines.restore.later_tablespaces import check_later, make_later
from pgbackup.engines.restore.links import make_links
from pgbackup.engines.restore.manifest import ManifestTable
from pgbackup.engines.restore.place import Claim, RestorePlace, map_tablespaces
from pgbackup.engines.restore.scan import RestoreScan
from pgbackup.engines.restore.sync import sync_trees
from pgbackup.engines.restore.wal import WalStager
from pgbackup.engines.wal.read import WalReader
from pgbackup.errors import RestoreError
from pgbackup.postgres.data_directory import missing_configuration
from pgbackup.repository import keys
from pgbackup.repository.backup_reader import extras_of
from pgbackup.repository.codec import Codec
from pgbackup.repository.documents import parse_object
from pgbackup.repository.tar_split import is_dropped
from pgbackup.storage.base import ObjectStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RestoreRequest:
    """What the operator wants. ``directory`` is absolute; ``tablespace_map``: location or OID -> new location.

    ``staged`` None: staged, unless that is unwise. ``files_only``: the backup's files alone, without WAL and without
    anything that recovery needs. ``repository`` and ``environ`` go into the restore_command for WAL
    on demand.
    """

    directory: Path
    target: Target = field(default_factory=Target)
    backup: str | None = None
    timeline: int | None = None
    accept_loss: bool = False
    staged: bool | None = None
    scan: bool = True
    tablespace_map: Mapping[str, str] = field(default_factory=dict)
    without_sync_standbys: bool = False
    without_archiving: bool = False
    threads: int = 4
    files_only: bool = False
    repository: str = ""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """A directory that can be started. ``verified``: every file was checked against the backup's manifest."""

    directory: Path
    plan: RecoveryPlan
    staged: bool
    raw_bytes: int
    seconds: float
    verified: bool
    notes: tuple[str, ...]


class Restore:
    """One restore from one repository; ``plan`` reads, ``run`` writes."""

    def __init__(
        self,
        store: ObjectStore,
        codec: Codec,
        catalog: Catalog,
        request: RestoreRequest,
        progress: ProgressSink | None = None,
        *,
        engine: Engine | None = None,
    ) -> None:
        """``engine``: what reads WAL and files out of the repository (None: we do)."""
        self._store = store
        self._codec = codec
        self._catalog = catalog
        self._request = request
        self._progress = progress or SilentProgress()
        self._engine = engine

    @property
    def staged(self) -> bool:
        return self._request.staged is not False and not self._request.files_only

    # -- plan ---------------------------------------------------------------------------------------------------------

    def plan(self) -> RecoveryPlan:
        """Choose backup, path and WAL. Raises RestoreError for what cannot succeed; writes nothing."""
        request, books = self._request, read_bookkeeping(self._store)
        by_name = chosen_by_name(self._catalog, request.backup)
        history = path_of(self._catalog, request.target, by_name, request.timeline, books.timeline)
        backups = candidates(self._catalog, history, by_name)
        reader = self._reader(None)
        catalog, confirmed = self._catalog, books.last_confirmed
        evidence = None
        if backups:
            start = probe_start(backups)
            probed = probe_open_end(self._store, catalog, history, start, reader)
            catalog = probed.catalog
            if probed.named is not None and (confirmed is None or confirmed < (history.timeline, probed.named)):
                confirmed = history.timeline, probed.named
        if request.scan and request.target.kind not in ("latest", "immediate"):
            self._progress.start("reading WAL", None)
            with damage_advised():
                evidence = RestoreScan(catalog, history, by_name, reader, self._progress).evidence(request.target)
            self._progress.finish()
        plan = plan_restore(
            catalog,
            request.target,
            backup=request.backup,
            timeline=request.timeline,
            default_timeline=books.timeline,
            last_confirmed=confirmed,
            accept_loss=request.accept_loss,
            evidence=evidence,
            damaged=books.damaged,
        )
        self._check_wal_mode(plan)
        return plan

    def place(self, plan: RecoveryPlan) -> RestorePlace:
        """Where the plan's files will go. Raises RestoreError when that is not free."""
        tablespaces = map_tablespaces(plan.backup.tablespaces, self._request.tablespace_map)
        place = RestorePlace(self._request.directory, tablespaces)
        place.check()
        if not self._request.files_only:
            check_later(place, plan.later_tablespaces)
        return place

    def check_space(self, plan: RecoveryPlan) -> None:
        """Read the backup's manifest and compare what is needed with what is free. Raises RestoreError."""
        place = self.place(plan)
        with self._chain(plan) as chain:
            manifest = chain.links[-1].objects.manifest
            if manifest is None:
                place.check_space(_space_needed(plan, place, chain, None, staged=self.staged))
                return
        with damage_advised(), closing(ManifestTable.load(self._store, self._codec, manifest)) as table:
            place.check_space(_space_needed(plan, place, chain, table, staged=self.staged))

    def download_bytes(self, plan: RecoveryPlan) -> int:
        """Stored bytes of the backup and of the plan's WAL."""
        with self._chain(plan) as chain:
            total = chain.stored_bytes
        by_timeline: dict[int, list[str]] = {}
        for file in plan.wal:
            by_timeline.setdefault(file.segment.timeline, []).append(str(file.segment))
        for names in by_timeline.values():
            for info in self._store.list(f"{keys.WAL}{names[0][:8]}", start_after=keys.before_segment(names[0])):
                if info.key[len(keys.WAL) :][:24] > names[-1]:
                    break
                total += info.size_bytes
        return total

    def _check_wal_mode(self, plan: RecoveryPlan) -> None:
        if self._request.staged is None and self.staged and plan.wal_bytes > STAGED_LIMIT_BYTES:
            raise RestoreError(
                f"the target needs {plan.wal_bytes >> 30} GiB of WAL, which staging would write twice",
                hint="Use --wal on-demand, choose a newer --backup, or say --wal staged if you want it all the same.",
            )

    # -- run ----------------------------------------------------------------------------------------------------------

    def run(self, plan: RecoveryPlan) -> RestoreResult:
        """Execute a plan. Raises RestoreError, CorruptObject and what the store raises; nothing starts then."""
        begin = time.monotonic()
        place = self.place(plan)
        with ExitStack() as stack:
            stack.enter_context(damage_advised())
            chain = stack.enter_context(self._chain(plan))
            table, manifest = None, chain.links[-1].objects.manifest
            if manifest is not None:
                table = stack.enter_context(closing(ManifestTable.load(self._store, self._codec, manifest)))
            place.check_space(_space_needed(plan, place, chain, table, staged=self.staged))
            stack.enter_context(disk_errors(place.directory))
            claim = stack.enter_context(closing(place.claim(plan.backup.name)))
            notes = self._fill(claim, plan, chain, table)
            sync_trees(place.all_directories)
            claim.release()
        seconds = time.monotonic() - begin
        notes = [*notes, *self._closing_notes(claim, table)]
        return RestoreResult(
            place.directory,
            plan,
            self.staged,
            raw_bytes=chain.raw_bytes,
            seconds=seconds,
            verified=table is not None,
            notes=(*plan.notes, *notes),
        )

    def _chain(self, plan: RecoveryPlan) -> BackupChain:
        return BackupChain.load(self._store, self._catalog, plan.backup)

    def _fill(self, claim: Claim, plan: RecoveryPlan, chain: BackupChain, table: ManifestTable | None) -> list[str]:
        directory = claim.place.directory
        files = DataFiles(Source(self._store, self._codec), claim, table, self._progress)
        files.link_tablespaces(claim.place.tablespaces)
        self._progress.start(f"restoring {plan.backup.name}", chain.raw_bytes)
        # With a manifest it is a backup of ours, and every file can be checked while it is written.
        fetched = table is None and self._fetched(claim, plan.backup)
        for level, link in enumerate(() if fetched else chain.links):
            files.restore(link.objects.parts, threads=self._request.threads, selection=link.files)
            for key in chain.keys_of(link):
                files.restore([key], threads=1, selection=link.files)
            chain.check_complete(level)
        self._progress.finish()
        about = chain.check_fetched(directory) if fetched else chain.notes(files.member_bytes)
        link_notes = self._make_links(claim, plan.backup, files)
        if table is not None:
            table.check_complete(directory, lambda name: is_left_out(name) or is_dropped(name))
        control = read_restored_control(claim, plan.backup)
        check_label(directory, plan.backup, control)
        if self._request.files_only:
            complete_files(claim)
            if missing := missing_configuration(directory):
                about = [*about, f"not in the backup: {', '.join(missing)}; supply them before the server starts"]
            return [*link_notes, *files.notes(), *about]
        restore_command, later = self._place_wal(claim, plan, control.system_identifier)
        later_notes = make_later(claim, later)
        notes = finish(claim, plan, control, (restore_command, END_COMMAND), self._finish_options(plan.backup))
        return [*later_notes, *notes, *link_notes, *files.notes(), *about]

    def _make_links(self, claim: Claim, backup: Backup, files: DataFiles) -> list[str]:
        """WAL-E's links mean something; WAL-G's lead nowhere, it writes a link's own name for its target."""
        if backup.engine == "wal-e":
            return make_links(claim.place.directory, claim.owner, files.links)
        if not files.links:
            return []
        names = ", ".join(name for name, _ in files.links[:3])
        return [f"{len(files.links)} symbolic links were left out, supply what they stood for: {names}"]

    def _fetched(self, claim: Claim, backup: Backup) -> bool:
        """Whether the engine has put the files into their places by its own means."""
        engine = self._engine
        if engine is None or engine.name == "native":
            return False
        return place_fetched(claim, lambda folder: engine.fetch_files(backup, folder, self._request.threads))

    def _place_wal(self, claim: Claim, plan: RecoveryPlan, system_identifier: int) -> tuple[str, Sequence[Tablespace]]:
        """Put the WAL, or the plan for fetching it, in its place; returns the restore_command, and the tablespaces that
        this WAL is known to create: all of them where it was read."""
        stager = WalStager(self._reader(system_identifier), claim.place.directory, claim.owner, self._progress)
        if not self.staged:
            stager.write_plan(plan)
            return on_demand_command(self._request.repository, self._request.environ), plan.later_tablespaces
        self._progress.start("staging WAL", plan.wal_bytes)
        stager.stage(plan, threads=self._request.threads)
        self._progress.finish()
        return STAGED_COMMAND, [Tablespace(each.oid, each.location) for each in stager.created(plan)]

    def _finish_options(self, backup: Backup) -> FinishOptions:
        key = keys.sentinel(backup.name)
        extras = extras_of(parse_object(key, self._store.get(key))) if backup.engine == "pgbackup" else {}
        return FinishOptions(
            without_sync_standbys=self._request.without_sync_standbys,
            without_archiving=self._request.without_archiving,
            saved_settings=_texts(extras.get("settings")),
            original_files=_texts(extras.get("config_files")),
        )

    def _reader(self, system_identifier: int | None) -> WalReader:
        wanted = system_identifier or self._catalog.system_identifier
        if self._engine is not None:
            return self._engine.wal_reader(self._store, system_identifier=wanted)
        return WalReader(self._store, self._codec, system_identifier=wanted)

    def _closing_notes(self, claim: Claim, table: ManifestTable | None) -> Sequence[str]:
        notes = []
        if table is None:
            notes.append(
                "the backup has no manifest: file contents could not be checked against the server's checksums"
            )
        if claim.owner is not None and claim.owner.uid == 0:
            notes.append(
                "the files belong to root, as their directory does, and a server does not run as root: chown it "
                "(the stock postgres image does that when it starts as root)"
            )
        image = self._request.environ.get("PGDATA", "")
        if image and Path(image) != claim.place.directory and Path(image).is_relative_to(claim.place.directory):
            notes.append(f"PGDATA is {image}: a server of this image looks there, not in {claim.place.directory}")
        if not self.staged and not self._request.files_only and (missing := secrets_needed(self._request.environ)):
            notes.append(f"the server's environment must have {', '.join(missing)} until recovery has ended")
        if not self.staged and not self._request.files_only:
            notes.append(
                "the WAL was not read: should it create a tablespace, that is made in its old place, which must be "
                "there and empty, and no other server's"
            )
        return notes


def _texts(found: object) -> dict[str, str]:
    """Name -> text of a JSON object that may be anything."""
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _space_needed(
    plan: RecoveryPlan, place: RestorePlace, chain: BackupChain, table: ManifestTable | None, *, staged: bool
) -> dict[Path, int]:
    """Bytes needed in each directory; where the manifest does not say it, all counts for the data directory."""
    wal = plan.space_bytes(staged=staged) - plan.backup.raw_bytes
    if table is None:
        return {place.directory: chain.data_bytes + wal}
    needed = {place.directory: table.data_bytes + wal}
    for oid, path in place.tablespaces.items():
        needed[path] = table.bytes_of_tablespace.get(oid, 0)
    return needed
