"""The tar reader: everything that the three writers produce, and every kind of damage."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.errors import CorruptObject
from pgbackup.repository.tar_read import iter_members

KEY = "basebackups_005/base_000000010000000000000002/tar_partitions/part_001.tar.zst"


class ShortReads:
    """A stream that returns as few bytes as it likes."""

    def __init__(self, data: bytes, sizes: Iterable[int] = (1 << 30,)) -> None:
        self._source = io.BytesIO(data)
        self._sizes = list(sizes)
        self._turn = 0

    def read(self, size: int = -1, /) -> bytes:
        limit = self._sizes[self._turn % len(self._sizes)]
        self._turn += 1
        return self._source.read(limit if size < 0 else min(size, limit))


def make(members, tar_format=tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, content, *changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o600
            for field, value in (changes[0] if changes else {}).items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def read_all(data: bytes, sizes=(1 << 30,)) -> list[tuple[str, str, bytes]]:
    found = []
    for member in iter_members(ShortReads(data, sizes), KEY):
        content = b""
        while block := member.read(1000):
            content += block
        found.append((member.name, member.kind, content))
    return found


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_of_each_format(tar_format):
    long = "base/" + "d" * 90 + "/" + "f" * 90
    members = [("base/5/1259", b"x" * 1000), (long, b"y" * 512), ("base/empty", b"")]
    assert read_all(make(members, tar_format)) == [
        ("base/5/1259", "file", b"x" * 1000),
        (long, "file", b"y" * 512),
        ("base/empty", "file", b""),
    ]


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_very_long_and_non_ascii_names(tar_format):
    name = "base/" + "naïve ☃ name/" * 30 + "x"
    assert [row[0] for row in read_all(make([(name, b"1")], tar_format))] == [name]


def test_a_name_that_is_not_utf8_keeps_its_bytes():
    name = b"base/\xff\xfe".decode("utf-8", "surrogateescape")
    (row,) = read_all(make([(name, b"1")], tarfile.GNU_FORMAT))
    assert row[0].encode("utf-8", "surrogateescape") == b"base/\xff\xfe"


@pytest.mark.parametrize(
    ("stored", "normal"),
    [("/base/1", "base/1"), ("./pg_wal/x", "pg_wal/x"), ("//a//b/./c", "a/b/c"), ("base/..x", "base/..x"), ("a", "a")],
)
def test_names_are_normalised(stored, normal):
    data = make([("x" * len(stored), b"")], tarfile.USTAR_FORMAT)
    assert [row[0] for row in read_all(rename(data, stored))] == [normal]


def rename(data: bytes, name: str) -> bytes:
    """Give the first member another name, with a fitting checksum."""
    header = bytearray(data[:512])
    header[0:100] = name.encode().ljust(100, b"\0")
    return bytes(with_checksum(header)) + data[512:]


def with_checksum(header: bytearray) -> bytearray:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return header


@pytest.mark.parametrize("stored", ["/", "./", ".", ""])
def test_the_root_entry_has_an_empty_name(stored):
    data = rename(make([("root", b"", {"type": tarfile.DIRTYPE, "mode": 0o700})], tarfile.USTAR_FORMAT), stored)
    assert read_all(data) == [("", "directory", b"")]


def test_kinds_modes_and_links():
    members = [
        ("d/", b"", {"type": tarfile.DIRTYPE, "mode": 0o750}),
        ("s", b"", {"type": tarfile.SYMTYPE, "linkname": "../elsewhere"}),
        ("h", b"", {"type": tarfile.LNKTYPE, "linkname": "f"}),
        ("p", b"", {"type": tarfile.FIFOTYPE}),
        ("f", b"abc", {"mode": 0o640, "mtime": 1700000000}),
    ]
    rows = [(m.name, m.kind, m.linkname, m.mode, m.mtime) for m in iter_members(io.BytesIO(make(members)), KEY)]
    assert [row[:3] for row in rows] == [
        ("d", "directory", ""),
        ("s", "symlink", "../elsewhere"),
        ("h", "hardlink", "f"),
        ("p", "other", ""),
        ("f", "file", ""),
    ]
    assert rows[0][3] == 0o750
    assert rows[4][3:] == (0o640, 1700000000.0)


def test_old_headers_with_a_trailing_slash_are_directories():
    data = rename(make([("base", b"")], tarfile.USTAR_FORMAT), "base/")
    assert read_all(data) == [("base", "directory", b"")]


def test_sizes_above_8_gib_are_base_256():
    header = bytearray(make([("big", b"")], tarfile.GNU_FORMAT)[:512])
    header[124:136] = b"\x80" + (9 << 30).to_bytes(11, "big")
    members = iter_members(io.BytesIO(bytes(with_checksum(header))), KEY)
    assert next(members).size_bytes == 9 << 30


def test_what_is_not_read_is_skipped():
    data = make([("a", b"1" * 5000), ("b", b"2" * 10), ("c", b"3" * 600)])
    names = []
    for member in iter_members(ShortReads(data, [700]), KEY):
        names.append(member.name)
        if member.name == "b":
            assert bytes(member.read(3)) == b"222"
    assert names == ["a", "b", "c"]


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=5), st.lists(st.binary(max_size=3000), max_size=6))
def test_any_split_of_the_stream_gives_the_same(sizes, contents):
    members = [(f"f{number}", content) for number, content in enumerate(contents)]
    assert [row[2] for row in read_all(make(members), sizes)] == contents


# -- tars that end early ------------------------------------------------------------------------------------------


def unterminated() -> bytes:
    """Without the two zero blocks, as WAL-G's remote mode leaves its last part."""
    data = make([("a", b"1" * 100), ("b", b"2" * 700)], tarfile.USTAR_FORMAT)
    return data[: 512 + 512 + 512 + 1024]


@pytest.mark.parametrize("cut", [0, 1, 1024 - 700])
def test_a_missing_end_and_missing_padding_are_fine(cut):
    data = unterminated()
    assert [row[2] for row in read_all(data[: len(data) - cut])] == [b"1" * 100, b"2" * 700]


def test_nothing_at_all_is_an_empty_archive():
    assert read_all(b"") == []


@pytest.mark.parametrize("kept", [100, 511, 512 + 99, 1024 + 17, 1536 + 1, 1536 + 699])
def test_an_end_inside_a_member_or_header_is_damage(kept):
    with pytest.raises(CorruptObject, match="ends inside") as caught:
        read_all(unterminated()[:kept])
    assert caught.value.key == KEY


def test_an_end_inside_an_unread_member_is_damage():
    with pytest.raises(CorruptObject):
        list(iter_members(io.BytesIO(unterminated()[:1700]), KEY))


def test_an_end_after_an_extended_header_is_damage():
    data = make([("n" * 300, b"x")], tarfile.GNU_FORMAT)
    with pytest.raises(CorruptObject, match="without the member"):
        read_all(data[:1024])


def test_data_after_the_end_is_damage():
    with pytest.raises(CorruptObject, match="after the end"):
        read_all(make([("a", b"1")]) + b"\0" * 5000 + b"x")


def test_zeros_after_the_end_are_fine():
    assert len(read_all(make([("a", b"1")]) + bytes(3 << 20))) == 1


# -- hostile tars -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil", "base/../../evil", "/..", "..", "a/.."])
def test_names_that_lead_out_are_refused(name):
    with pytest.raises(CorruptObject, match="leads out"):
        read_all(rename(make([("x", b"1")], tarfile.USTAR_FORMAT), name))


def test_a_pax_name_with_a_zero_byte_is_refused():
    with pytest.raises(CorruptObject, match="zero byte"):
        read_all(make([("x", b"1", {"pax_headers": {"path": "a\0b"}})]))


def test_a_flipped_bit_in_a_header_is_damage():
    data = bytearray(make([("a", b"1")], tarfile.USTAR_FORMAT))
    data[0] ^= 1
    with pytest.raises(CorruptObject, match="checksum"):
        read_all(bytes(data))


@pytest.mark.parametrize(
    "pax",
    [
        {"size": "-1"},
        {"size": "9" * 20},
        {"size": "9" * 5000},
        {"size": "many"},
        {"mtime": "late"},
        {"GNU.sparse.major": "1"},
        {"GNU.sparse.size": "9"},
    ],
)
def test_pax_records_that_cannot_be_followed_are_refused(pax):
    with pytest.raises(CorruptObject):
        read_all(make([("x", b"1", {"pax_headers": pax})]))


def test_a_malformed_pax_header_is_damage():
    data = make([("x", b"1", {"pax_headers": {"comment": "hello"}})])
    with pytest.raises(CorruptObject, match="pax header is malformed"):
        read_all(data.replace(b"comment=", b"comment:"))


def test_an_extended_header_of_impossible_size_is_not_read():
    header = bytearray(make([("n" * 300, b"x")], tarfile.GNU_FORMAT)[:512])
    header[124:136] = b"77777777777\0"
    with pytest.raises(CorruptObject, match="extended header of"):
        read_all(bytes(with_checksum(header)))


def test_a_negative_size_is_refused():
    header = bytearray(make([("a", b"")], tarfile.GNU_FORMAT)[:512])
    header[124:136] = b"\xff" * 12
    with pytest.raises(CorruptObject, match="a size that no file has"):
        read_all(bytes(with_checksum(header)))


@given(st.binary(min_size=1, max_size=3000))
def test_noise_is_refused_and_nothing_else_escapes(noise):
    try:
        read_all(noise)
    except CorruptObject:
        return
    assert not noise.strip(b"\0")
