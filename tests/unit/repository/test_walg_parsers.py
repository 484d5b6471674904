"""What WAL-G says of files, and its increments: real ones are understood, hostile ones refused, in bounded memory."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbackup.errors import CorruptObject
from pgbackup.repository import openpgp
from pgbackup.repository.increment import PAGE_BYTES, read_increment
from pgbackup.repository.tar_read import Member, iter_members
from pgbackup.repository.walg_file_table import WalgFileTable
from pgbackup.repository.walg_files import ListedFile, iter_listed_files, without_lists
from tests.foreign_archives import make_increment, make_tar

KEY = "basebackups_005/x/files_metadata.json"
relaxed = settings(max_examples=200, deadline=None)


def listed(document: object) -> list[ListedFile]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return list(iter_listed_files(KEY, io.BytesIO(data)))


def member_of(data: bytes) -> Member:
    tar = make_tar([("base/5/1", data)], form=tarfile.USTAR_FORMAT)
    return next(iter_members(io.BytesIO(tar), "part"))


@relaxed
@given(
    st.dictionaries(st.text("abc/é", min_size=1), st.tuples(st.booleans(), st.booleans()), max_size=20),
    st.dictionaries(st.sampled_from(["TarFileSets", "DatabasesByNames", "Other"]), st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
            st.sampled_from(["Files", "IsSkipped", "x"]), inner), max_leaves=10)),
)  # fmt: skip
def test_lists_are_read_whatever_is_around_them(files, others) -> None:
    files = {name: flags for name, flags in files.items() if flags != (True, True)}
    document = others | {"Files": {n: {"IsIncremented": i, "IsSkipped": s, "X": {"IsSkipped": [1]}}
                                   for n, (i, s) in files.items()}} | {"Z": [others]}  # fmt: skip
    found = [(f.is_incremented, f.is_skipped) for f in listed(document)]
    assert found == list(files.values())
    small = without_lists(KEY, io.BytesIO(json.dumps(document).encode()))
    assert without_lists(KEY, io.BytesIO(b'{"x": 1.5, "id": 9223372036854775808}')) == {"x": 1.5, "id": 1 << 63}
    assert small == json.loads(json.dumps({"Z": [others]} | {k: v for k, v in others.items() if k == "Other"}))


@pytest.mark.parametrize("number", [b"9" * 5000, b"-" + b"9" * 5000, b"9" * 70_000, b"1e99999999999999999999999"])
def test_numbers_that_python_does_not_take(number: bytes) -> None:
    """Again and again: ijson's C backend ended the process with a segmentation fault at the second or third of them."""
    for _ in range(20):
        with pytest.raises(CorruptObject):
            without_lists(KEY, io.BytesIO(b'{"x": %s}' % number))
        with pytest.raises(CorruptObject):
            listed(b'{"Files": {"/a": {"MTime": %s}}}' % number)


def test_gos_rules() -> None:
    assert listed({"files": {"/a": {"isskipped": True}, "/b": None, "/c": {"IsSkipped": None}}}) == [
        ListedFile("a", False, True), ListedFile("b", False, False), ListedFile("c", False, False),
    ]  # fmt: skip
    assert listed({"Files": None}) == listed({}) == []
    assert not listed({"Files": {"/b\ufffd": {}}})[0].is_certain


@pytest.mark.parametrize(
    "document",
    [
        [], 1, b"", b"{", b'{"Files": {"a": {}', b"{} {}", {"Files": []}, {"Files": {"a": 1}}, {"Files": {"a": []}},
        {"Files": {"a": {"IsSkipped": 1}}}, {"Files": {"/../etc/passwd": {}}}, {"Files": {"a\0": {}}},
        {"Files": {"a": {"IsSkipped": True, "IsIncremented": True}}}, b'{"Files": ' + b"[" * 10_000,
        {"Files": {"x" * 3_000_000: {}}}, b'{"X":' + b"{" * 100 + b"}" * 100 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_list_is_refused(document: object) -> None:
    with pytest.raises(CorruptObject):
        listed(document)


@relaxed
@given(st.binary(max_size=200))
def test_nonsense_is_refused_and_nothing_else(data: bytes) -> None:
    for begin in (b"", b'{"Files":{"a":{'):
        try:
            listed(begin + data)
        except CorruptObject:
            pass
    openpgp.is_message(data)
    assert not openpgp.is_message(b"\x85\x01\x0c\x03" + data[:200])


@relaxed
@given(st.integers(0, 6), st.sets(st.integers(0, 5)), st.data())
def test_an_increment_over_the_old_file_makes_the_new_one(pages: int, changed: set[int], data: st.DataObject) -> None:
    old = b"".join(struct.pack("<IIHHHH", 0, 1, 0, 0, 24, 8192).ljust(PAGE_BYTES, b"o") for _ in range(6))
    new = b"".join(
        struct.pack("<IIHHHH", 0, 9 if n in changed else 1, 0, 0, 24, 8192).ljust(PAGE_BYTES, b"on"[n in changed :][:1])
        for n in range(pages)
    )  # fmt: skip
    stored = make_increment(new, 5)
    increment = read_increment("part", member_of(stored))
    made = bytearray(old[: increment.file_bytes].ljust(increment.file_bytes, b"\0"))
    for offset, view in increment.pages:
        made[offset : offset + len(view)] = view
    assert made == new
    cut = data.draw(st.integers(0, len(stored) - 1))
    with pytest.raises(CorruptObject):
        list(read_increment("part", member_of(stored[:cut])).pages)
    with pytest.raises(CorruptObject):
        list(read_increment("part", member_of(stored + b"x")).pages)


@pytest.mark.parametrize(
    "head",
    [
        b"wi2\x55" + struct.pack("<QI", 8192, 0), b"wi1\x55" + struct.pack("<QI", 1 << 60, 0),
        b"wi1\x55" + struct.pack("<QI", 8192, 0xFFFFFFFF),
        b"wi1\x55" + struct.pack("<QIII", 16384, 2, 1, 0) + bytes(16384),
        b"wi1\x55" + struct.pack("<QIII", 16384, 2, 1, 1) + bytes(16384),
        b"wi1\x55" + struct.pack("<QII", 8192, 1, 0xFFFFFFFF) + bytes(8192),
    ],
)  # fmt: skip
def test_increments_that_do_not_add_up(head: bytes) -> None:
    with pytest.raises(CorruptObject, match="is no increment"):
        read_increment("part", member_of(head))


def test_the_need_sets_of_a_chain() -> None:
    """f: whole in the newest; i: an increment all the way; s: skipped twice; gone: dropped since."""
    lists = [
        [("f", 0, 0), ("i", 0, 0), ("s", 0, 0), ("gone", 0, 0)],
        [("f", 1, 0), ("i", 1, 0), ("s", 0, 1)],
        [("f", 0, 0), ("i", 1, 0), ("s", 0, 1), ("new", 0, 0)],
    ]
    with WalgFileTable() as table:
        for level, files in enumerate(lists):
            assert table.load(level, f"list{level}", [ListedFile(n, bool(i), bool(s)) for n, i, s in files])
        table.choose(2)
        taken = {level: {n: table.take(level, "tar", n) for n, _, _ in files} for level, files in enumerate(lists)}
        assert taken[0] == {"f": "none", "i": "whole", "s": "whole", "gone": "none"}
        assert taken[1] == {"f": "none", "i": "increment", "s": "none"}
        assert taken[2] == {"f": "whole", "i": "increment", "s": "none", "new": "whole"}
        assert [list(table.missing(level)) for level in range(3)] == [[], [], []]
        assert [table.take(level, "tar", "backup_label") for level in range(3)] == ["none", "none", "whole"]
        with pytest.raises(CorruptObject, match="another object"):
            table.take(2, "tar", "new")
        table.give_back(2, ["new"])
        assert list(table.missing(2)) == ["new"]


def test_lists_that_do_not_fit_together() -> None:
    for full, delta in ((["a"], ["a", "b"]), ([], ["a"])):
        with WalgFileTable() as table:
            table.load(0, "list0", [ListedFile(name, False, False) for name in [*full, "x"]])
            table.load(1, "list1", [ListedFile(name, False, True) for name in delta])
            with pytest.raises(CorruptObject, match="does not list it"):
                table.choose(1)
    with WalgFileTable() as table:
        table.load(0, "list0", [ListedFile("a", False, True)])
        with pytest.raises(CorruptObject, match="in an older one"):
            table.choose(0)


def test_random_bytes_are_never_taken_for_openpgp() -> None:
    assert not any(
        openpgp.is_message(bytes([first]) + os.urandom(600)) for first in (0x84, 0x85, 0xC1) for _ in range(5000)
    )
