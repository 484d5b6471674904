"""The objects of one base backup, read back in full: every file against the manifest, every document parsed.

Postgres wrote the manifest, and its checksums are of the files as the server sent them: what passes here is what a
restore would write. A backup of another tool has no manifest; then its tars are decoded, and only their own checksums
speak for the files, and for WAL-G's the list of them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import partial

from pgbackup.core.backup import CONTROL_FILE, Backup
from pgbackup.count_text import counted, is_or_are
from pgbackup.engines.base import ProgressSink
from pgbackup.engines.verify.listed import ListedFiles
from pgbackup.engines.verify.manifest import ExpectedFiles
from pgbackup.engines.verify.report import Findings
from pgbackup.engines.verify.workers import Workers
from pgbackup.errors import CorruptObject
from pgbackup.postgres.backup_label import BACKUP_LABEL, MAX_LABEL_BYTES, label_problem
from pgbackup.postgres.pg_control import CONTROL_FILE_BYTES, parse_control_file
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec
from pgbackup.repository.json_object import JsonObject
from pgbackup.repository.manifest import FileChecksum
from pgbackup.repository.metadata_check import foreign_metadata_problem, metadata_problem
from pgbackup.repository.sentinels import fetch_sentinel
from pgbackup.repository.small_objects import fetch_metadata
from pgbackup.repository.tar_read import Member, iter_members
from pgbackup.storage.base import ObjectInfo, ObjectStore

_TAR = re.compile(r"(?:part_(\d+)|copy_\d+|pg_control|backup_label)\.tar(?:\.[a-z0-9]*)?")
_CONTROL_TAR = "pg_control.tar"
_INDISPENSABLE = frozenset({CONTROL_FILE, BACKUP_LABEL})
"""No list of another tool names these, and a restore refuses a backup without them."""
_READ_BYTES = 1 << 20
_NAMED = 100


class FilesCheck:
    """Checks one backup; ``run`` once."""

    def __init__(
        self,
        store: ObjectStore,
        codec: Codec,
        backup: Backup,
        findings: Findings,
        listed: ListedFiles | None = None,
    ) -> None:
        """``listed``: WAL-G's list of the files of its backup."""
        self._store = store
        self._codec = codec
        self._backup = backup
        self._findings = findings
        self._is_ours = backup.engine == "pgbackup"
        self._files = ExpectedFiles()
        self._listed = listed
        self._member_bytes = 0
        self._lock = threading.Lock()
        self._unproven = False
        self._has_control = False
        self._tablespaces = {str(tablespace.oid) for tablespace in backup.tablespaces}
        self._seen: set[str] = set()
        self._whole_tars = True

    def run(self, workers: Workers, progress: ProgressSink) -> None:
        """Read everything. Problems become findings; a store that does not answer raises."""
        folder = keys.backup_folder(self._backup.name)
        infos = (i for i in self._store.list(folder) if i.size_bytes or not i.key.endswith("/"))
        listed = {info.key: info for info in infos}
        tars = self._sort_out(listed)
        progress.start(f"backup {self._backup.name}", sum(info.size_bytes for info in listed.values()))
        try:
            self._check_documents(listed, progress)
            workers.run_all(partial(self._check_tar, info, workers, progress) for info in tars)
            self._check_complete()
        finally:
            progress.finish()
            self._files.close()

    # -- what there is ------------------------------------------------------------------------------------------

    def _sort_out(self, listed: dict[str, ObjectInfo]) -> list[ObjectInfo]:
        """The tars, large ones first; names what is missing among them and what does not belong there."""
        folder = keys.tar_folder(self._backup.name)
        tars, numbers, has_control_tar = [], set(), False
        for key, info in listed.items():
            if not key.startswith(folder):
                continue
            match = _TAR.fullmatch(key.removeprefix(folder))
            if match is None and not (self._backup.engine == "wal-e" and ".tar" in key):
                self._findings.add("unexpected", key, "no backup has such an object, and a restore would read it")
                continue
            tars.append(info)
            if match is not None and match[1]:
                numbers.add(int(match[1]))
            has_control_tar |= key.startswith(folder + _CONTROL_TAR)
        self._name_missing(tars, numbers, has_control_tar=has_control_tar)
        return sorted(tars, key=lambda info: info.size_bytes, reverse=True)

    def _name_missing(self, tars: list[ObjectInfo], numbers: set[int], *, has_control_tar: bool) -> None:
        """Numbers of ours begin at 1 and have no gaps; a part that is missing at the end shows by its files."""
        name = self._backup.name
        extension = next((keys.split_extension(info.key)[1] for info in tars), self._codec.extension)
        missing = []
        if not has_control_tar and self._backup.engine != "wal-e":
            missing.append(keys.control_tar(name, extension))
        if self._backup.engine == "wal-e":
            lost = sorted(set(range(max(numbers, default=1))) - numbers)
            missing += [f"{keys.tar_folder(name)}part_{number:08d}.tar.lzo" for number in lost[:_NAMED]]
        else:
            wanted = range(1, max(numbers, default=1) + 1) if self._is_ours or not tars else ()
            missing += [keys.part(name, number, extension) for number in sorted(set(wanted) - numbers)[:_NAMED]]
        for key in missing:
            self._findings.add("missing", key, "it is not in the repository")
        self._whole_tars = not missing

    # -- documents ----------------------------------------------------------------------------------------------

    def _check_documents(self, listed: dict[str, ObjectInfo], progress: ProgressSink) -> None:
        name, store = self._backup.name, self._store
        metadata, file_list, manifest = keys.metadata(name), keys.files_metadata(name), keys.manifest(name, "")
        checks: dict[str, Callable[[], object]] = {}
        for key in listed:
            if keys.split_extension(key)[0] == manifest:
                checks[key] = partial(self._files.load, store, self._codec, key, self._backup)
        if not checks and self._is_ours:
            key = keys.manifest(name, self._codec.extension)
            self._findings.add("missing", key, "without it no file's content can be checked")
        elif not checks:
            self._findings.note(f"{name} has no manifest: its files were read, not compared with checksums")
            if self._listed is not None:
                with self._findings.catching(keys.sentinel(name)):
                    self._listed.check_there(store, self._backup, self._findings)
        if self._backup.engine == "wal-g" and metadata not in listed:
            self._findings.note(f"{name} has no metadata.json, where WAL-G keeps times and permanence")
        elif self._backup.engine != "wal-e":
            checks[metadata] = self._check_metadata
        if self._is_ours:
            checks[file_list] = partial(self._files.check_list, store, file_list)
            folder = keys.tar_folder(name)
            for key in listed:
                if key not in checks and not key.startswith(folder):
                    self._findings.add("unexpected", key, "no backup has such an object")
        for key, check in checks.items():
            with self._findings.catching(key):
                check()
            size = listed[key].size_bytes if key in listed else 0
            self._findings.count(objects=1, stored_bytes=size)
            progress.advance(size)

    def _check_metadata(self) -> None:
        """Raises CorruptObject when it cannot be read, or differs from the sentinel."""
        key, info = keys.metadata(self._backup.name), self._store.head(keys.sentinel(self._backup.name))
        metadata = JsonObject.parse(key, fetch_metadata(self._store, self._backup.name))
        if info is None or self._backup.problem:
            return
        seal = JsonObject.parse(info.key, fetch_sentinel(self._store, info))
        problem = (metadata_problem if self._is_ours else foreign_metadata_problem)(seal, metadata)
        if problem:
            raise CorruptObject(key, problem)

    # -- tars ---------------------------------------------------------------------------------------------------

    def _check_tar(self, info: ObjectInfo, workers: Workers, progress: ProgressSink) -> None:
        is_whole = False
        with (
            self._findings.catching(info.key),
            self._store.open_read(info.key) as source,
            self._codec.open(
                info.key, workers.counted(source, progress.advance), on_unproven=self._note_unproven
            ) as stream,
        ):
            for member in iter_members(stream, info.key):
                self._check_member(info.key, member)
            is_whole = True
        if not is_whole:
            self._whole_tars = False
        self._findings.count(objects=1, stored_bytes=info.size_bytes)

    def _note_unproven(self) -> None:
        """Some formats have no checksum: a flipped bit may pass unseen there."""
        with self._lock:
            if not self._files.known and not self._unproven:
                self._findings.note(f"{self._backup.name} is stored without checksums: damage may pass unseen")
            self._unproven = True

    def _check_member(self, key: str, member: Member) -> None:
        with self._lock:
            self._member_bytes += member.size_bytes
        self._check_tablespace(key, member)
        if self._listed is not None:
            self._listed.check_member(key, member, self._findings)
        if member.kind == "directory":
            return
        if member.kind != "file":
            if self._files.known:
                self._findings.add("unexpected", key, f"it holds {member.name!r}, which is a {member.kind}")
            return
        self._check_place(key, member)
        self._check_content(key, member)

    def _check_tablespace(self, key: str, member: Member) -> None:
        """A restore refuses files for which the documents name no place; one finding for each tablespace."""
        parts = member.name.split("/", 2)
        if parts[0] != "pg_tblspc" or len(parts) < 2 or member.kind not in ("file", "directory"):
            return
        with self._lock:
            is_known = parts[1] in self._tablespaces
            self._tablespaces.add(parts[1])
        if not is_known:
            problem = f"it brings files of tablespace {parts[1]!r}, which the backup's documents do not know"
            self._findings.add("unexpected", key, problem)

    def _check_place(self, key: str, member: Member) -> None:
        """Whether the file is one that a backup must have, and where it belongs."""
        if member.name in _INDISPENSABLE:
            self._seen.add(member.name)
        if member.name != CONTROL_FILE:
            return
        if _is_control_tar(key):
            self._has_control = True
        elif self._is_ours:
            self._findings.add("unexpected", key, f"it holds {CONTROL_FILE}, which belongs into {_CONTROL_TAR} alone")

    def _check_content(self, key: str, member: Member) -> None:
        wanted = self._files.take(member.name)
        if self._files.known and wanted is None:
            problem = f"it holds the file {member.name!r}, which the manifest does not list, or another object brought"
            self._findings.add("unexpected", key, problem)
        computed = FileChecksum(wanted.checksum_algorithm if wanted is not None else "NONE")
        # WAL-G's remote mode stores the file in a part as well; what lies in the tar of its own is restored last.
        is_control = member.name == CONTROL_FILE and (_is_control_tar(key) or self._backup.engine == "wal-e")
        limit = CONTROL_FILE_BYTES if is_control else MAX_LABEL_BYTES if member.name == BACKUP_LABEL else 0
        kept = bytearray()
        while view := member.read(_READ_BYTES):
            computed.update(view)
            if limit and len(kept) <= limit:
                kept += view
        self._findings.count(files=1, raw_bytes=member.size_bytes)
        if wanted is not None and member.size_bytes != wanted.size_bytes:
            problem = f"it has {member.size_bytes} bytes instead of {wanted.size_bytes}"
        elif wanted is not None and computed.hexdigest() != wanted.checksum:
            problem = f"its {computed.algorithm} checksum is {computed.hexdigest()} instead of {wanted.checksum}"
        else:
            if is_control and (useless := _control_problem(bytes(kept), self._backup)):
                self._findings.add("damaged", key, f"no server starts with its file {CONTROL_FILE}: {useless}")
            if member.name == BACKUP_LABEL and (wrong := self._label_problem(bytes(kept))):
                self._findings.add("damaged", key, f"no server recovers with its file {BACKUP_LABEL}: {wrong}")
            return
        self._findings.add("damaged", key, f"file {member.name!r} is not what the manifest says: {problem}")

    def _label_problem(self, label: bytes) -> str:
        """Of a backup whose documents do not tell where it began nobody can say whether the label is its own."""
        return label_problem(label, self._backup.start_lsn) if self._backup.start_lsn else ""

    def _check_complete(self) -> None:
        left = self._files.left()
        if not self._whole_tars:
            self._findings.unchecked_files = left
            return
        folder = keys.tar_folder(self._backup.name)
        if self._listed is not None:
            self._listed.check_complete(self._backup, self._findings)
        if self._backup.engine == "wal-e" and self._member_bytes < self._backup.raw_bytes:
            problem = (
                f"its files have {self._member_bytes} bytes, the sentinel says {self._backup.raw_bytes}: the last "
            )
            self._findings.add("missing", folder, problem + "parts are missing, or files vanished while it was taken")
        if not self._files.known:
            for path in sorted(_INDISPENSABLE - self._seen):
                self._findings.add("missing", folder, f"no object holds {path!r}, without which no server can recover")
        for count, path in enumerate(self._files.left_paths()):
            if count == _NAMED:
                self._findings.add(
                    "missing",
                    folder,
                    f"{counted(left - count, 'more file')} of the backup {is_or_are(left - count)} in no object",
                )
                break
            self._findings.add("missing", folder, f"the file {path!r} of the backup is in no object")
        if not self._has_control and self._is_ours and not left:
            self._findings.add("missing", folder + _CONTROL_TAR, f"it does not hold {CONTROL_FILE}")


def _is_control_tar(key: str) -> bool:
    return keys.split_extension(key)[0].endswith("/" + _CONTROL_TAR)


def _control_problem(data: bytes, backup: Backup) -> str:
    """Why a restore would refuse a control file, for people; empty when it would not."""
    try:
        control = parse_control_file(data)
    except ValueError as exc:
        return str(exc)
    if backup.system_identifier and control.system_identifier != backup.system_identifier:
        return f"it belongs to cluster {control.system_identifier}, not {backup.system_identifier}"
    return ""
