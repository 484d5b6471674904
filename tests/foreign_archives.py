"""Archives as WAL-E and WAL-G lay them out, made from a running server without any code of pgbackup.

Backups are taken by the server's own functions (not exclusive, so on every version), files come from its data
directory, tars from Python's tarfile, increments from the pages' own LSNs; compression and encryption are whatever
function a test gives. WAL is what lies in pg_wal.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.storage.base import ObjectStore

PAGE = 8192
SEGMENT = 16 << 20
Encode = Callable[[bytes], bytes]
_EMPTY_FOLDERS = {
    "log", "pg_dynshmem", "pg_log", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp",
    "pg_subtrans", "pg_wal", "pgsql_tmp",
}  # fmt: skip
_NEVER = {"postmaster.pid", "postmaster.opts", "postgresql.auto.conf.tmp", "recovery.conf", "standby.signal"}
_WAL_E_NEVER = {"postmaster.pid", "postmaster.opts", "postgresql.conf", "pg_hba.conf", "pg_ident.conf", "recovery.conf"}
_PAGED = re.compile(r"\d+(\.\d+)?")


@dataclass
class Taken:
    """What the server said of a backup, and its files: path below the data directory -> bytes (None: a directory)."""

    start: int
    stop: int
    timeline: int
    label: bytes
    tablespace_map: bytes
    files: dict[str, bytes | None]
    mtimes: dict[str, int]
    links: dict[str, str] = field(default_factory=dict)

    def segment(self, lsn: int) -> str:
        number = lsn // SEGMENT
        return f"{self.timeline:08X}{number // 256:08X}{number % 256:08X}"


def take(server: ThrowawayServer, *, left_out: set[str], while_copying: Callable[[], None] = lambda: None) -> Taken:
    """Copy the data directory between the functions that start and stop a backup."""
    new = server.major >= 15
    with server.connect() as session:
        start = "pg_backup_start('x', true)" if new else "pg_start_backup('x', true, false)"
        row = session.execute(f"SELECT ({start} - '0/0')::bigint").fetchone()  # type: ignore[arg-type]
        assert row is not None
        files, links, mtimes = _read(server.data_directory, left_out)
        while_copying()
        stop = "pg_backup_stop(false)" if new else "pg_stop_backup(false, false)"
        end, label, spaces = session.execute(
            f"SELECT (lsn - '0/0')::bigint, labelfile, spcmapfile FROM {stop}"
        ).fetchone()  # type: ignore[arg-type,misc]
        timeline = int(re.search(r"START TIMELINE: (\d+)", label)[1])  # type: ignore[index]
    return Taken(row[0], end, timeline, label.encode(), (spaces or "").encode(), files, mtimes, links)


def _read(root: Path, left_out: set[str]) -> tuple[dict[str, bytes | None], dict[str, str], dict[str, int]]:
    files: dict[str, bytes | None] = {}
    links, mtimes = {}, {}
    for folder, folders, names in os.walk(root):
        here = os.path.relpath(folder, root)
        prefix = "" if here == "." else f"{here}/"
        for name in list(folders):
            if (Path(folder) / name).is_symlink():
                links[prefix + name] = str((Path(folder) / name).readlink())
                folders.remove(name)
                if prefix == "pg_tblspc/":
                    inner, _, times = _read(Path(folder) / name, left_out)
                    files |= {f"{prefix}{name}/{path}": data for path, data in inner.items()}
                    mtimes |= {f"{prefix}{name}/{path}": data for path, data in times.items()}
                continue
            files[prefix + name] = None
            if name in _EMPTY_FOLDERS:
                folders.remove(name)
        for name in names:
            if (Path(folder) / name).is_symlink():
                links[prefix + name] = str((Path(folder) / name).readlink())
            elif name not in left_out:
                files[prefix + name] = (Path(folder) / name).read_bytes()
                mtimes[prefix + name] = (Path(folder) / name).stat().st_mtime_ns
    return files, links, mtimes


def put_wal(store: ObjectStore, server: ThrowawayServer, extension: str, encode: Encode) -> None:
    """All whole segments and histories that the server still has."""
    server.execute("SELECT pg_switch_wal()")
    timeline = int(server.execute("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")[0][0], 16)
    # Not by pg_walfile_name: at the boundary, where the switch has brought us, that is the segment before.
    position = Lsn.parse(server.execute("SELECT pg_current_wal_lsn()::text")[0][0])
    current = str(SegmentName.containing(timeline, position))
    for path in sorted((server.data_directory / "pg_wal").iterdir()):
        if path.name.endswith(".history") or (re.fullmatch("[0-9A-F]{24}", path.name) and path.name < current):
            store.put(f"wal_005/{path.name}{extension}", encode(path.read_bytes()))


def make_tar(members: list[tuple[str, bytes | None]], *, form: int, links: dict[str, str] | None = None) -> bytes:
    """``None``: a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.mode, member.mtime = (0o700, 1.5) if data is None else (0o600, 1.5)
            if data is None:
                member.type = tarfile.DIRTYPE
            member.size = len(data or b"")
            tar.addfile(member, io.BytesIO(data or b""))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return buffer.getvalue()


def unterminated(tar: bytes) -> bytes:
    """Without the end mark and the padding of the last member, as WAL-G's remote mode leaves it."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as read:
        last = read.getmembers()[-1]
    return tar[: last.offset_data + last.size]


# -- WAL-E ------------------------------------------------------------------------------------------------------------


def wal_e_backup(
    store: ObjectStore,
    server: ThrowawayServer,
    encode: Encode,
    *,
    parts: int = 3,
    links: dict[str, str] | None = None,
    while_copying: Callable[[], None] = lambda: None,
) -> str:
    """A backup of WAL-E 1.1: pax tars, slash-less names, an empty root name, the label among the files."""
    taken = take(server, left_out=_WAL_E_NEVER, while_copying=while_copying)
    name = f"base_{taken.segment(taken.start)}_{taken.start % SEGMENT:08d}"
    members: list[tuple[str, bytes | None]] = [("", None), *taken.files.items(), ("backup_label", taken.label)]
    if taken.tablespace_map:
        members.append(("tablespace_map", taken.tablespace_map))
    folder = f"basebackups_005/{name}"
    for number in range(parts):
        tar = make_tar(members[number::parts], form=tarfile.PAX_FORMAT, links=links if not number else None)
        store.put(f"{folder}/tar_partitions/part_{number:08d}.tar.lzo", encode(tar))
    store.put(f"{folder}/extended_version.txt", server.execute("SELECT version()")[0][0].encode())
    stop = taken.stop - 1
    spaces = {path.split("/")[1]: target for path, target in taken.links.items() if path.startswith("pg_tblspc/")}
    sentinel = {
        "wal_segment_backup_stop": taken.segment(stop), "wal_segment_offset_backup_stop": f"{taken.stop % SEGMENT:08d}",
        "expanded_size_bytes": sum(len(data or b"") for _, data in members),
        "spec": {"base_prefix": f"{server.data_directory}/", "tablespaces": list(spaces)}
        | {oid: {"loc": f"{place}/", "link": f"pg_tblspc/{oid}"} for oid, place in spaces.items()},
    }  # fmt: skip
    store.put(f"basebackups_005/{name}_backup_stop_sentinel.json", json.dumps(sentinel).encode())
    return name


# -- WAL-G ------------------------------------------------------------------------------------------------------------


@dataclass
class WalG:
    """WAL-G in local mode: full backups and deltas, as version 3 (or, ``old``, 0.2) writes them."""

    store: ObjectStore
    server: ThrowawayServer
    extension: str
    encode: Encode
    old: bool = False
    parts: int = 3
    made: list[tuple[str, Taken, dict[str, Any]]] = field(default_factory=list)

    def full(self) -> str:
        taken = take(self.server, left_out=_NEVER)
        files = {f"/{path}": _entry(taken, path) for path in taken.files if path != "global/pg_control"}
        return self._put(taken, f"base_{taken.segment(taken.start)}", files, dict(taken.files), {})

    def delta(self, parent: int = -1) -> str:
        parent_name, before, parent_sentinel = self.made[parent]
        taken = take(self.server, left_out=_NEVER)
        files: dict[str, Any] = {}
        members: dict[str, bytes | None] = {}
        for path, data in taken.files.items():
            entry = _entry(taken, path)
            if path == "global/pg_control":
                members[path] = data
                continue
            if data is not None and path in before.files:
                if taken.mtimes[path] == before.mtimes[path]:
                    files[f"/{path}"] = entry | {"IsSkipped": True}
                    continue
                entry["IsIncremented"] = _is_paged(path, data)
            files[f"/{path}"] = entry
            members[path] = make_increment(data or b"", before.start) if entry["IsIncremented"] else data
        name = f"base_{taken.segment(taken.start)}_D_{parent_name[5:29]}"
        count = parent_sentinel.get("DeltaCount", 0) + 1
        delta = {
            "DeltaFromLSN" if self.old else "DeltaLSN": before.start, "DeltaFrom": parent_name, "DeltaCount": count,
            "DeltaFullName": parent_sentinel.get("DeltaFullName", parent_name),
        }  # fmt: skip
        return self._put(taken, name, files, members, delta)

    def _put(
        self, taken: Taken, name: str, files: dict[str, Any], members: dict[str, bytes | None], delta: dict[str, Any]
    ) -> str:
        folder = f"basebackups_005/{name}/tar_partitions"
        control = members.pop("global/pg_control")
        named: list[tuple[str, bytes | None]] = [("/", None), *((f"/{path}", data) for path, data in members.items())]
        for number in range(self.parts):
            tar = make_tar(named[number :: self.parts], form=tarfile.PAX_FORMAT)
            self.store.put(f"{folder}/part_{number + 1:03d}.tar{self.extension}", self.encode(tar))
        labels: list[tuple[str, bytes | None]] = [
            ("backup_label", taken.label),
            ("tablespace_map", taken.tablespace_map),
        ]
        for what, content in {"backup_label": labels, "pg_control": [("/global/pg_control", control)]}.items():
            tar = make_tar(content, form=tarfile.USTAR_FORMAT)
            self.store.put(f"{folder}/{what}.tar{self.extension}", self.encode(tar))
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        system = self.server.execute("SELECT system_identifier FROM pg_control_system()")[0][0] % (1 << 64)
        version = int(self.server.execute("SHOW server_version_num")[0][0])
        size = sum(len(data or b"") for data in taken.files.values())
        sentinel = {
            "LSN": taken.start, "PgVersion": version, "FinishLSN": taken.stop, "SystemIdentifier": system,
            "UncompressedSize": sum(len(data or b"") for data in members.values()), "CompressedSize": 1,
        } | delta  # fmt: skip
        lists = {
            "Files": files,
            "TarFileSets": {"part_001.tar": list(files)[:3]},
            "DatabasesByNames": {"x": {"oid": 5}},
        }
        if self.old:
            sentinel |= lists
        else:
            sentinel |= {"DataCatalogSize": size, "Version": 2, "StartTime": now, "FinishTime": now, "ChkpNum": None}
            metadata = {
                "start_time": now, "finish_time": now, "hostname": "h", "data_dir": "/d", "pg_version": version,
                "start_lsn": taken.start, "finish_lsn": taken.stop, "is_permanent": False, "system_identifier": system,
            }  # fmt: skip
            self.store.put(f"basebackups_005/{name}/metadata.json", json.dumps(metadata).encode())
            self.store.put(f"basebackups_005/{name}/files_metadata.json", json.dumps(lists).encode())
        self.store.put(f"basebackups_005/{name}_backup_stop_sentinel.json", json.dumps(sentinel).encode())
        self.made.append((name, taken, sentinel))
        return name


def _entry(taken: Taken, path: str) -> dict[str, Any]:
    moment = datetime.fromtimestamp(taken.mtimes.get(path, 0) / 1e9, UTC).isoformat()
    return {"IsIncremented": False, "IsSkipped": False, "MTime": moment, "UpdatesCount": 0}


def _is_paged(path: str, data: bytes) -> bool:
    is_data = ("base/" in path or "pg_tblspc" in path) and bool(data) and len(data) % PAGE == 0
    return is_data and _PAGED.fullmatch(path.rpartition("/")[2]) is not None


def make_increment(data: bytes, since: int) -> bytes:
    """The pages that changed since an LSN by their own word (the first eight bytes), and the new ones."""
    chosen = list(changed_pages(data, since))
    head = b"wi1\x55" + struct.pack("<QI", len(data), len(chosen)) + struct.pack(f"<{len(chosen)}I", *chosen)
    return head + b"".join(data[number * PAGE : (number + 1) * PAGE] for number in chosen)


def changed_pages(data: bytes, since: int) -> Iterator[int]:
    for number in range(len(data) // PAGE):
        high, low, _, _, _, upper = struct.unpack_from("<IIHHHH", data, number * PAGE)
        if upper == 0 or (high << 32 | low) >= since:
            yield number
