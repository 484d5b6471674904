"""``refusals(store)``: everything in a repository that WAL-G would refuse, misread or silently leave out.

Independent of our writer on purpose: it knows keys, formats and rules from repository-format.md alone, and nothing of
pgbackup's own modules but the store that it reads from.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

from pgbackup.storage.base import ObjectInfo, ObjectStore
from tests.walg import documents
from tests.walg.streams import EXTENSIONS, Refused, content, extension_of, read_tar

BASEBACKUPS, WAL, SUFFIX = "basebackups_005/", "wal_005/", "_backup_stop_sentinel.json"
_PART = re.compile(r"part_\d{3,}\.tar(\.\w+)?")
_LAST = re.compile(r"(pg_control|backup_label)\.tar(\.\w+)?")
_WAL_NAME = re.compile(r"[0-9A-F]{24}(\.partial|\.[0-9A-F]{8}\.backup)?|[0-9A-F]{8}\.history")
_RUN = re.compile(r"[0-9A-F]{24}")
_HISTORY_LINE = re.compile(r"\d+\t.+\t.+")
_SEGMENTS_READ = 4
_BACKUPS_READ = 3


def refusals(store: ObjectStore, keys: Sequence[bytes] = (), *, segment_bytes: int | None = None) -> list[str]:
    """What WAL-G would not take, a line each. ``keys``: the encryption keys that may have been used."""
    infos = list(store.list())
    key = _key_in_use(store, infos, keys)
    size = segment_bytes or _configured_segment_bytes(store)
    found = [f"{info.key}: a stranger whose path names a segment" for info in infos if _is_stranger(info)]
    folders, seals = _backups(infos)
    for number, (name, seal) in enumerate(sorted(seals.items(), key=lambda item: item[1].modified, reverse=True)):
        check = _BackupCheck(store, name, seal, folders.get(name, []), key, size)
        found += [f"{name}: {problem}" for problem in check.problems(read_tars=number < _BACKUPS_READ)]
        parent = check.sentinel.get("DeltaFrom")
        if parent and parent not in seals:
            found.append(f"{name}: its parent {parent} is not there")
    wal = [info for info in infos if info.key.startswith(WAL) and "/" not in info.key[len(WAL) :]]
    found += _wal_problems(store.get, wal, key, size)
    return found


def _backups(infos: Iterable[ObjectInfo]) -> tuple[dict[str, list[ObjectInfo]], dict[str, ObjectInfo]]:
    folders: dict[str, list[ObjectInfo]] = {}
    seals = {}
    for info in infos:
        if not info.key.startswith(BASEBACKUPS):
            continue
        name, slash, _ = info.key[len(BASEBACKUPS) :].partition("/")
        if slash:
            folders.setdefault(name, []).append(info)
        elif name.endswith(SUFFIX):
            seals[name.removesuffix(SUFFIX)] = info
    return folders, seals


def _is_stranger(info: ObjectInfo) -> bool:
    """wal-g delete looks at every object below the prefix whose path has 24 digits."""
    return not info.key.startswith((BASEBACKUPS, WAL)) and _RUN.search(info.key) is not None


def _key_in_use(store: ObjectStore, infos: Iterable[ObjectInfo], keys: Sequence[bytes]) -> bytes | None:
    """The key that opens any of the first objects, or None: WAL-G has one crypter for a whole prefix."""
    found = [info for info in infos if "/tar_partitions/" in info.key or info.key.startswith(WAL)]
    for info in found[:3] if keys else ():
        for key in keys:
            try:
                content(info.key.rpartition("/")[2], store.get(info.key), key)
            except Refused:
                continue
            return key
    return None


def _configured_segment_bytes(store: ObjectStore) -> int:
    """What the operator would set as WALG_PG_WAL_SIZE."""
    info = store.head("pgbackup_005/cluster.json")
    return int(json.loads(store.get(info.key))["segment_bytes"]) if info is not None else 16 << 20


def segment_name(timeline: int, lsn: int, size: int) -> str:
    number, per_file = lsn // size, (1 << 32) // size
    return f"{timeline:08X}{number // per_file:08X}{number % per_file:08X}"


class _BackupCheck:
    """One sealed backup."""

    def __init__(
        self, store: ObjectStore, name: str, seal: ObjectInfo, infos: list[ObjectInfo], key: bytes | None, size: int
    ) -> None:
        self._store, self._name, self._seal, self._infos, self._key, self._size = store, name, seal, infos, key, size
        self._folder = f"{BASEBACKUPS}{name}/"
        self.sentinel: dict[str, Any] = {}

    def problems(self, *, read_tars: bool) -> Iterator[str]:
        yield from documents.name_problems(self._name)
        self.sentinel, found = documents.sentinel_problems(self._store.get(self._seal.key))
        yield from (f"sentinel: {problem}" for problem in found)
        yield from documents.metadata_problems(self._document("metadata.json"), self.sentinel)
        yield from self._name_and_lsn()
        tars = [info for info in self._infos if info.key.startswith(f"{self._folder}tar_partitions/")]
        yield from self._sealed_last(tars)
        yield from self._objects([info.key.rpartition("/")[2] for info in tars])
        if read_tars:
            yield from self._members(tars)

    def _document(self, name: str) -> bytes | None:
        return next((self._store.get(info.key) for info in self._infos if info.key == self._folder + name), None)

    def _name_and_lsn(self) -> Iterator[str]:
        lsn, match = self.sentinel.get("LSN"), documents.FULL.match(self._name)
        if match is not None and isinstance(lsn, int):
            named = [segment_name(int(match[1][:8], 16), at, self._size) for at in (lsn, max(lsn - 1, 0))]
            if match[1] not in named:
                yield f"its LSN {lsn:X} is not in the segment of its name, with segments of {self._size} bytes"

    def _sealed_last(self, tars: list[ObjectInfo]) -> Iterator[str]:
        """LATEST is the youngest seal; S3 knows whole seconds."""
        late = [info.key for info in tars if info.modified > self._seal.modified + timedelta(seconds=1)]
        if late:
            yield f"{late[0]} is younger than the seal"

    def _objects(self, names: list[str]) -> Iterator[str]:
        """Section 5: what has to be in tar_partitions, and that nothing else is."""
        if not any(_PART.fullmatch(name) for name in names):
            yield "there is no part: it did not provide files to extract"
        if not any(_LAST.fullmatch(name) and name.startswith("pg_control") for name in names):
            yield "there is no pg_control.tar"
        for name in names:
            if not (_PART.fullmatch(name) or _LAST.fullmatch(name)):
                yield f"{name} in tar_partitions is extracted as well, or retried for an hour"
            elif extension_of(name) not in (*EXTENSIONS, "tar"):
                yield f"{name} has an unknown extension"

    def _members(self, tars: list[ObjectInfo]) -> Iterator[str]:
        allowed, found = documents.allow_list(self._document("files_metadata.json"), self.sentinel)
        yield from found
        files: Counter[str] = Counter()
        for info in tars:
            name = info.key.rpartition("/")[2]
            try:
                tar = read_tar(content(name, self._store.get(info.key), self._key))
            except Refused as exc:
                yield f"{name}: {exc}"
                continue
            yield from (f"{name}: {problem}" for problem in tar.problems)
            files.update(tar.files.keys())
            if name.startswith("pg_control") and [each.lstrip("/") for each in tar.files] != ["global/pg_control"]:
                yield f"{name} holds {list(tar.files)}"
        yield from self._files(files, allowed)

    def _files(self, files: Counter[str], allowed: set[str] | None) -> Iterator[str]:
        bare = {name.lstrip("/") for name in files}
        for name, count in files.items():
            if count > 1 and name.lstrip("/") != "global/pg_control":
                yield f"{name} is in several tars, which are extracted in no order"
            if allowed is not None and name not in allowed:
                yield f"{name} is not in Files: it is silently not restored"
        if allowed is not None:
            for name in sorted(allowed - documents.UTILITY - set(files))[:3]:
                yield f"{name} is in Files, and in no tar"
        for needed in ("global/pg_control", "backup_label"):
            if needed not in bare:
                yield f"no tar has {needed}"
        spaces = set((self.sentinel.get("Spec") or {}).get("tablespaces") or [])
        used = {name.split("/")[1] for name in bare if name.startswith("pg_tblspc/")}
        if used - spaces:
            yield f"tablespaces {used - spaces} are in the tars and not in Spec"
        if spaces and "tablespace_map" not in bare:
            yield "there are tablespaces in Spec, and no tablespace_map"


def _wal_problems(get: Callable[[str], bytes], infos: list[ObjectInfo], key: bytes | None, size: int) -> Iterator[str]:
    """Sections 2.1, 8 and 12.3: names, extensions, one object a segment; content of the first and the last ones."""
    names: Counter[str] = Counter()
    whole = []
    for info in infos:
        name = info.key[len(WAL) :]
        bare = name if _WAL_NAME.fullmatch(name) else name.rpartition(".")[0]
        names[bare] += 1
        if _WAL_NAME.fullmatch(bare) is None or (name != bare and extension_of(name) not in EXTENSIONS):
            yield f"{info.key}: not a name of WAL"
        elif bare.endswith(".partial") and name == bare:
            yield f"{info.key}: an uncompressed .partial counts as the segment itself"
        elif bare.endswith(".history"):
            yield from _history_problems(info.key, name, get(info.key), key, bare == name)
        elif len(bare) == 24:
            whole.append(info)
    yield from (f"{WAL}{name}: stored {count} times" for name, count in names.items() if count > 1)
    for info in [*whole[: _SEGMENTS_READ - 1], *whole[_SEGMENTS_READ - 1 :][-1:]]:
        try:
            data = content(info.key[len(WAL) :], get(info.key), key)
        except Refused as exc:
            yield f"{info.key}: {exc}"
            continue
        if len(data) != size:
            yield f"{info.key}: {len(data)} bytes of WAL, not {size}"


def _history_problems(where: str, name: str, stored: bytes, key: bytes | None, is_bare: bool) -> Iterator[str]:
    try:
        text = content("x" * 24 if is_bare else name, stored, key).decode("utf-8", "replace")
    except Refused as exc:
        yield f"{where}: {exc}"
        return
    for line in text.splitlines():
        if line.strip() and not line.startswith("#") and _HISTORY_LINE.fullmatch(line) is None:
            yield f"{where}: {line!r} is no line of a history"
