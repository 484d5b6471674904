"""The files of a WAL-G backup, read back and compared with the backup's own list of files.

WAL-G has no checksums of files. What can be said: every file that the list names is in a tar, once, and nothing else
is; increments are well-formed. What is in the files only the compression's checksum vouches for.
"""

from __future__ import annotations

from pgbackup.core.backup import Backup
from pgbackup.count_text import counted, is_or_are
from pgbackup.engines.verify.report import Findings
from pgbackup.repository import keys
from pgbackup.repository.increment import read_increment
from pgbackup.repository.json_object import JsonObject
from pgbackup.repository.sentinels import fetch_sentinel
from pgbackup.repository.tar_read import Member
from pgbackup.repository.walg_file_table import WalgFileTable
from pgbackup.repository.walg_files import UTILITY_FILES
from pgbackup.storage.base import ObjectStore

_NAMED = 100
_WITH_LIST, _WITHOUT_LIST = 2, "FilesMetadataDisabled"
"""A sentinel's Version from which on there is a list beside it, and the field that says there is none."""


class ListedFiles:
    """The list of one backup of a chain. Safe for threads."""

    def __init__(self, table: WalgFileTable, level: int) -> None:
        self._table = table
        self._level = level

    def check_there(self, store: ObjectStore, backup: Backup, findings: Findings) -> None:
        """A backup without a list is none to be sure of; WAL-G 2 and later says in the sentinel when it wrote none."""
        if self._table.has_list(self._level):
            return
        info = store.head(keys.sentinel(backup.name))
        seal = JsonObject.parse(info.key, fetch_sentinel(store, info)) if info is not None else None
        if seal is not None and (seal.integer("Version") or 0) >= _WITH_LIST and not seal.flag(_WITHOUT_LIST):
            findings.add("missing", keys.files_metadata(backup.name), "nobody can say whether all files are there")
        else:
            findings.note(f"{backup.name} has no list of its files: whether all are there could not be checked")

    def check_member(self, key: str, member: Member, findings: Findings) -> None:
        """Compare a member with the list, and read an increment to its end. Raises CorruptObject."""
        if not self._table.has_list(self._level):
            return
        part = self._table.part_of(self._level, member.name)
        if member.kind != "file":
            self._table.bring(self._level, member.name)
        elif part is None:
            if member.name not in UTILITY_FILES:
                findings.add("unexpected", key, f"it holds the file {member.name!r}, which the backup does not list")
        elif part == "none":
            findings.add("unexpected", key, f"it holds the file {member.name!r}, which is listed as unchanged")
        elif not self._table.bring(self._level, member.name) and member.name not in UTILITY_FILES:
            findings.add("unexpected", key, f"it holds the file {member.name!r}, which another object brought")
        if part == "increment" and member.kind == "file":
            for _ in read_increment(key, member).pages:
                pass

    def check_complete(self, backup: Backup, findings: Findings) -> None:
        """Name what no tar has brought. For use when all tars were read to their ends."""
        folder = keys.tar_folder(backup.name)
        missing = list(self._table.missing(self._level, needed_only=False))
        for path in missing[:_NAMED]:
            findings.add("missing", folder, f"the file {path!r} of the backup is in no object")
        if more := len(missing[_NAMED:]):
            findings.add(
                "missing", folder, f"{counted(more, 'more file')} of the backup {is_or_are(more)} in no object"
            )
