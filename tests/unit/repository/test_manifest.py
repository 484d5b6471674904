"""Postgres' backup_manifest as a stream: whole and authentic, or CorruptObject."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.lsn import Lsn
from pgbackup.errors import CorruptObject
from pgbackup.repository.manifest import FileChecksum, ManifestReader, iter_manifest
from tests.made_backup import FILES, make_manifest

START, STOP = Lsn.parse("0/2000028"), Lsn.parse("0/2000100")
# As PostgreSQL 16 printed it, shortened to three files (the checksum at the end is computed again).
REAL_BODY = """{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "backup_label", "Size": 226, "Last-Modified": "2026-11-23 21:50:01 GMT", "Checksum-Algorithm": "CRC32C", \
"Checksum": "5c9a8e3d" },
{ "Path": "tablespace_map", "Size": 0, "Last-Modified": "2026-11-23 21:50:01 GMT" },
{ "Encoded-Path": "62617365ff", "Size": 8192, "Last-Modified": "2026-11-23 21:50:01 GMT", "Checksum-Algorithm": \
"SHA256", "Checksum": "AB00" }
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
],
"""


def signed(body: str) -> bytes:
    raw = body.encode()
    return raw + f'"Manifest-Checksum": "{hashlib.sha256(raw).hexdigest()}"}}\n'.encode()


def read(data: bytes) -> ManifestReader:
    reader = ManifestReader("the/key", io.BytesIO(data))
    list(reader)
    return reader


def test_what_a_server_writes() -> None:
    reader = iter_manifest(io.BytesIO(signed(REAL_BODY)))
    files = list(reader)
    assert [(f.path, f.size_bytes, f.checksum_algorithm, f.checksum) for f in files] == [
        ("backup_label", 226, "CRC32C", "5c9a8e3d"),
        ("tablespace_map", 0, "NONE", ""),
        ("base\udcff", 8192, "SHA256", "ab00"),
    ]
    assert [(r.timeline, r.start, r.end) for r in reader.wal_ranges] == [(1, START, STOP)]
    assert reader.system_identifier is None


def test_version_2_names_the_cluster() -> None:
    assert read(make_manifest(FILES, START, STOP, system_identifier=1 << 63)).system_identifier == 1 << 63


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(st.dictionaries(names, st.binary(max_size=50), min_size=1))
def test_round_trip(files: dict[str, bytes]) -> None:
    found = list(iter_manifest(io.BytesIO(make_manifest(files, START, STOP))))
    assert [(f.path, f.size_bytes) for f in found] == [(path, len(content)) for path, content in files.items()]


def test_every_cut_and_every_flipped_bit_is_seen() -> None:
    data = make_manifest(dict(list(FILES.items())[:2]), START, STOP)
    for length in range(len(data) - 2):
        with pytest.raises(CorruptObject, match="the/key"):
            read(data[:length])
    for position in range(len(data) - 2):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(CorruptObject):
                read(bytes(damaged))


@pytest.mark.parametrize(
    "body",
    [
        REAL_BODY.replace('"Size": 226', '"Size": -1'),
        REAL_BODY.replace('"Size": 226', '"Size": ' + "9" * 20),
        REAL_BODY.replace('"Size": 226', '"Size": ' + "9" * 5000),
        REAL_BODY.replace('"Size": 226', '"Size": "226"'),
        REAL_BODY.replace('"Size": 226', '"Size": true'),
        REAL_BODY.replace('"Path": "backup_label"', '"Path": ["x"]'),
        REAL_BODY.replace('"Path": "backup_label", ', ""),
        REAL_BODY.replace("62617365ff", "6261zz"),
        REAL_BODY.replace('"Start-LSN": "0/2000028"', '"Start-LSN": "x"'),
        REAL_BODY.replace('Version": 1', 'Version": 3'),
        REAL_BODY.replace('{ "Path": "tablespace_map"', '[1], { "Path": "tablespace_map"'),
        REAL_BODY.replace('"Files": [\n', '"Files": [\n[1],\n'),
        REAL_BODY.replace('"Files": [\n', '"Files": [\n' + "[" * 100_000 + "\n"),
        REAL_BODY.replace('"Files": [\n', ": [\n"),
        "",
    ],
)
def test_hostile_manifests_are_damage(body: str) -> None:
    with pytest.raises(CorruptObject):
        read(signed(body))


def test_a_line_without_end() -> None:
    with pytest.raises(CorruptObject, match="line"):
        read(b"{" * 5_000_000)


def test_bytes_behind_the_checksum() -> None:
    with pytest.raises(CorruptObject, match="follow"):
        read(signed(REAL_BODY) + b"x\n")


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        # CRC-32C of "123456789" is E3069283; Postgres prints the bytes of the little-endian number.
        ("CRC32C", "839206e3"),
        ("SHA224", hashlib.sha224(b"123456789").hexdigest()),
        ("SHA256", hashlib.sha256(b"123456789").hexdigest()),
        ("SHA384", hashlib.sha384(b"123456789").hexdigest()),
        ("SHA512", hashlib.sha512(b"123456789").hexdigest()),
        ("NONE", ""),
    ],
)
def test_checksums(algorithm: str, expected: str) -> None:
    checksum = FileChecksum(algorithm)
    checksum.update(b"1234")
    checksum.update(memoryview(b"56789"))
    assert checksum.hexdigest() == expected


def test_an_unknown_algorithm() -> None:
    with pytest.raises(ValueError, match="MD5"):
        FileChecksum("MD5")
