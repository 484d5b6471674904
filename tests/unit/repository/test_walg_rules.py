"""The ten traps for a writer that WAL-G is to read (repository-format.md, section 17), each by its name.

Every trap is laid into a good repository and must be found by the rules of tests/walg; so what these let pass, in every
test that runs them over what our writer made, has been looked at with eyes that see.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import lz4.frame
import pytest
import zstandard

from pgbackup.core.lsn import MIB, Lsn
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.memory import MemoryStore
from tests.made_backup import FILES, NOON, MadeRepository
from tests.walg.accepts import refusals

NAME = "base_00000001000000000000000A"
KEY = bytes(range(32))
PART = f"basebackups_005/{NAME}/tar_partitions/part_001.tar.zst"
CONTROL = f"basebackups_005/{NAME}/tar_partitions/pg_control.tar.zst"
SEAL = f"basebackups_005/{NAME}_backup_stop_sentinel.json"
METADATA = f"basebackups_005/{NAME}/metadata.json"
LISTED = f"basebackups_005/{NAME}/files_metadata.json"
WHOLE = FILES | {"tablespace_map": b"16384 /mnt/ts 1\n"}


class Made(MadeRepository):
    """A repository whose clock a test can set, and whose objects it can change."""

    def change(self, key: str, change: Callable[[dict[str, Any]], object]) -> None:
        document = json.loads(self.store.get(key))
        change(document)
        self.store.put(key, json.dumps(document).encode())

    def move(self, old: str, new: str) -> None:
        for info in list(self.store.list(keys.BASEBACKUPS)):
            if old in info.key:
                self.store.put(info.key.replace(old, new), self.store.get(info.key))
                self.store.delete([info.key])


def make(codec: Codec | None = None) -> Made:
    made = Made(store=MemoryStore(now=lambda: NOON), **({} if codec is None else {"codec": codec}))
    made.claim()
    assert made.backup(Lsn(10 * MIB + 40), Lsn(11 * MIB + 400), files=WHOLE) == NAME
    for number in range(10, 14):
        made.put(made.segment_key(1, number), bytes(MIB))
    made.put(keys.piece("00000001000000000000000E", 0, 100, made.codec.extension), bytes(100))
    made.history(2, (1, Lsn(13 * MIB)))
    return made


@pytest.fixture
def made() -> Made:
    return make()


def refused(made: Made, *parts: str, keys_: tuple[bytes, ...] = ()) -> None:
    found = refusals(made.store, keys_)
    assert any(all(part in line for part in parts) for line in found), found


@pytest.mark.parametrize("method", ["zstd", "lz4", "none"])
@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "libsodium"])
def test_a_good_repository_is_taken(method: str, key: bytes | None) -> None:
    assert refusals(make(Codec(Compression.parse(method), key)).store, [bytes(32), KEY]) == []


def test_trap_1_the_name(made: Made) -> None:
    made.move(NAME, f"{NAME}_00000028")
    refused(made, "classed as WAL-E's")
    made = make()
    made.move(NAME, NAME.lower())
    refused(made, "its name is not recognised")


def test_trap_1_the_name_is_not_the_start(made: Made) -> None:
    made.change(SEAL, lambda seal: seal.update(LSN=20 * MIB))
    refused(made, "is not in the segment of its name")


def test_trap_2_the_list_of_files(made: Made) -> None:
    made.change(LISTED, lambda listed: listed["Files"].pop("base/5/1259"))
    refused(made, "base/5/1259 is not in Files: it is silently not restored")
    made = make()
    made.change(LISTED, lambda listed: listed["Files"].update({"/base/5/1259": listed["Files"].pop("base/5/1259")}))
    refused(made, "base/5/1259 is not in Files")
    refused(made, "/base/5/1259 is in Files, and in no tar")
    made = make()
    made.store.delete([LISTED])
    refused(made, "files_metadata.json is missing")


def test_trap_3_metadata(made: Made) -> None:
    for change, said in (
        (lambda document: document.update(start_lsn="0/A00028"), "start_lsn is no uint64"),
        (lambda document: document.update(start_lsn=10485800.0), "start_lsn is no uint64"),
        (lambda document: document.update(finish_time="2026-03-01T12:00:00"), "finish_time is no time"),
        (lambda document: document.update(start_time="2026-03-01 12:00:00Z"), "start_time is no time"),
        (lambda document: document.update(is_permanent="no"), "is_permanent is no bool"),
        (lambda document: document.pop("start_time"), "start_time is missing"),
    ):
        made = make()
        made.change(METADATA, change)
        refused(made, said)
    made = make()
    made.store.delete([METADATA])
    refused(made, "metadata.json is missing")


def test_trap_4_leftovers_under_one_name(made: Made) -> None:
    """Everything in tar_partitions is extracted, in no order."""
    made.store.put(PART.replace("part_001", "part_007"), made.store.get(PART))
    refused(made, "is in several tars")


def test_trap_5_no_control_file_no_part_or_a_stray_object(made: Made) -> None:
    made.store.delete([CONTROL])
    refused(made, "there is no pg_control.tar")
    refused(made, "no tar has global/pg_control")
    made = make()
    made.store.delete([info.key for info in made.store.list(keys.tar_folder(NAME)) if "part_" in info.key])
    refused(made, "there is no part")
    made = make()
    made.store.put(keys.tar_folder(NAME) + "notes.txt", b"")
    refused(made, "notes.txt in tar_partitions")
    made = make()
    made.store.put(PART.replace(".zst", ".xz"), made.store.get(PART))
    refused(made, "unknown extension")


def test_trap_6_frames(made: Made) -> None:
    made = make(Codec(Compression("lz4")))
    part = PART.replace("zst", "lz4")
    whole = lz4.frame.decompress(made.store.get(part))
    half = len(whole) // 1024 * 512
    made.store.put(part, lz4.frame.compress(whole[:half]) + lz4.frame.compress(whole[half:]))
    refused(made, "goes on after the first LZ4 frame")
    made = make()
    whole = zstandard.ZstdDecompressor().decompressobj().decompress(made.store.get(PART))
    # A frame of one raw block of one byte, whose header says a window of 1 GiB.
    made.store.put(PART, b"\x28\xb5\x2f\xfd\x00" + bytes([20 << 3]) + b"\x09\x00\x00x")
    refused(made, "window is larger than 512 MiB")
    made = make()
    made.store.put(PART, zstandard.compress(whole + b"more"))
    refused(made, "something follows the end of the tar")


def test_trap_7_libsodium() -> None:
    codec = Codec(Compression("zstd", 1), KEY)
    plain = make().store
    made = make(codec)
    made.store.put(PART, plain.get(PART))
    refused(made, "part_001.tar.zst", "cannot be decrypted", keys_=(KEY,))
    made = make(codec)
    refused(made, "mixed with encrypted objects", keys_=())
    made.store.put(PART, made.store.get(PART)[:-20])
    refused(made, "cannot be decrypted", keys_=(KEY,))
    made = make(codec.uncompressed())
    bare = PART.removesuffix(".zst")
    stored = made.store.get(bare)
    made.store.put(bare, stored[: 24 + 2 * (8192 + 17)])
    refused(made, "cut at the border of a chunk", keys_=(KEY,))
    made = make(codec)
    made.store.put(SEAL, codec.uncompressed().encode(made.store.get(SEAL)))
    refused(made, "sentinel: is not JSON", keys_=(KEY,))


def test_trap_8_links_and_the_spec(made: Made) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("pg_tblspc/16384")
        link.type, link.linkname = tarfile.SYMTYPE, "/mnt/ts1"
        tar.addfile(link)
    made.put(PART.replace("part_001", "part_009"), buffer.getvalue())
    refused(made, "pg_tblspc/16384 is a link")
    for change, said in (
        (lambda spec: spec.pop("base_prefix"), "no base_prefix"),
        (lambda spec: spec.update(tablespaces=[16384]), "no loc and link of its own"),
        (lambda spec: spec["16384"].pop("loc"), "no loc and link of its own"),
        (lambda spec: spec.update(tablespaces=[]), "are in the tars and not in Spec"),
    ):
        made = make()
        made.change(SEAL, lambda seal, change=change: change(seal["Spec"]))
        refused(made, said)


def test_trap_9_the_youngest_seal_is_the_latest(made: Made) -> None:
    later = MemoryStore(now=lambda: NOON + timedelta(minutes=5))
    made.store._objects[PART] = replace_modified(made.store, later, PART)
    refused(made, "is younger than the seal")


def replace_modified(store: MemoryStore, later: MemoryStore, key: str) -> Any:
    """The stored object as another clock would have dated it."""
    later.put(key, store.get(key))
    return later._objects[key]


def test_trap_10_fields_of_a_delta(made: Made) -> None:
    made.change(SEAL, lambda seal: seal.update(DeltaFrom="base_000000010000000000000001"))
    refused(made, "DeltaFrom without DeltaLSN")
    refused(made, "its parent base_000000010000000000000001 is not there")
    made = make()
    made.change(SEAL, lambda seal: seal.pop("FinishLSN"))
    refused(made, "LSN and FinishLSN are needed")
    assert any("is not in the segment" in line for line in refusals(make().store, segment_bytes=64 * MIB)), (
        "WALG_PG_WAL_SIZE must be the cluster's"
    )


def test_near_the_list_wal(made: Made) -> None:
    segment = made.segment_key(1, 12)
    made.store.put(segment.replace("zst", "lz4"), lz4.frame.compress(bytes(MIB)))
    refused(made, "stored 2 times")
    made = make()
    made.put(segment, b"short")
    made.store.delete([made.segment_key(1, 13)])
    refused(made, segment, "5 bytes of WAL, not 1048576")
    made = make()
    made.store.put("wal_005/00000001000000000000000E.partial", bytes(MIB))
    refused(made, "counts as the segment itself")
    made = make()
    made.store.put("wal_005/00000001000000000000000E.json", b"{}")
    refused(made, "not a name of WAL")
    made = make()
    made.put("wal_005/00000003.history.zst", b"1 0/C00000 reason\n")
    refused(made, "is no line of a history")


def test_near_the_list_bookkeeping(made: Made) -> None:
    made.store.put("pgbackup_005/marks/00000001000000000000000E", b"")
    refused(made, "a stranger whose path names a segment")


def test_our_documents_are_those_of_the_rules(made: Made) -> None:
    """A permanent backup, damaged blocks, a label: nothing of it in the way of WAL-G."""
    documents = made.documents(Lsn(10 * MIB + 40), Lsn(11 * MIB + 400), label="größe", corrupt_files={"base/5/1": [1]})
    made.store.put(SEAL, replace(documents, permanent=True).sentinel())
    made.store.put(METADATA, replace(documents, permanent=True).metadata())
    assert refusals(made.store) == []
