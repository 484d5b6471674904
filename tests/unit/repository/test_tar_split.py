"""The splitter: whatever tar comes in, cut anywhere, the parts hold the same members, each in a tar of its own."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbackup.core.backup import CONTROL_FILE
from pgbackup.repository.tar_header import Header, TarProblem
from pgbackup.repository.tar_read import iter_members
from pgbackup.repository.tar_split import END_OF_TAR, TarSplitter, is_dropped

CONTROL = (CONTROL_FILE, b"control" * 1000)


@dataclass
class Parts:
    """A sink that keeps everything."""

    parts: list[bytearray] = field(default_factory=list)
    control: list[bytearray] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    _open: bytearray | None = None
    _file: tuple[str, Header, bytearray] | None = None

    def open_part(self, *, control: bool) -> None:
        assert self._open is None
        self._open = bytearray()
        (self.control if control else self.parts).append(self._open)

    def write(self, data: bytes | memoryview) -> None:
        assert self._open is not None
        self._open += data

    def close_part(self) -> None:
        assert self._open is not None
        assert self._open.endswith(END_OF_TAR)
        self._open = None

    def begin_file(self, name: str, header: Header) -> None:
        self._file = name, header, bytearray()

    def write_content(self, data: memoryview) -> None:
        self.write(data)
        assert self._file is not None
        self._file[2].extend(data)

    def end_file(self) -> None:
        assert self._file is not None
        name, header, content = self._file
        assert len(content) == header.size_bytes
        assert name not in self.files
        self.files[name] = bytes(content)
        self._file = None


def make_tar(members: dict[str, bytes | None], *, tar_format: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar with files, and directories where the content is None."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tar_format, errors="surrogateescape") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.mtime, info.mode = 1_700_000_000, 0o600
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o700
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


def split(
    archives: dict[int | None, bytes], *, part_bytes: int = 1 << 20, cut: int = 32768, cuts: list[int] | None = None
) -> Parts:
    """Feed archives in pieces of ``cut`` bytes, or in pieces of the sizes in ``cuts`` over and over."""
    sink = Parts()
    splitter = TarSplitter(sink, part_bytes)
    sizes = cuts or [cut]
    for oid, data in archives.items():
        splitter.begin_archive(oid)
        position = number = 0
        while position < len(data):
            size = sizes[number % len(sizes)]
            splitter.feed(memoryview(data)[position : position + size])
            position += size
            number += 1
        splitter.end_archive()
    return sink


def read_python(data: bytes) -> dict[str, bytes | None]:
    """The members as Python's own reader sees them."""
    found: dict[str, bytes | None] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", errors="surrogateescape") as tar:
        for info in tar:
            assert info.name not in found
            reader = tar.extractfile(info)
            assert info.isdir() or reader is not None
            found[info.name] = reader.read() if reader is not None else None
    return found


def read_ours(data: bytes) -> dict[str, bytes | None]:
    """The members as our restore sees them."""
    found: dict[str, bytes | None] = {}
    for member in iter_members(io.BytesIO(data), "part"):
        content = bytearray()
        while view := member.read():
            content += view
        found[member.name] = bytes(content) if member.kind == "file" else None
    return found


def read_all(parts: list[bytearray]) -> dict[str, bytes | None]:
    """The members of all parts; every part must read the same both ways."""
    together: dict[str, bytes | None] = {}
    for part in parts:
        members = read_ours(bytes(part))
        assert members == read_python(bytes(part))
        assert members, "a part without members"
        assert not together.keys() & members.keys()
        together |= members
    return together


# -- any tar, cut anywhere ----------------------------------------------------------------------------------------

_segment = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda text: text not in (".", "..") and not is_dropped(text)
)
_names = st.lists(_segment, min_size=1, max_size=6).map("/".join).filter(lambda name: name != CONTROL_FILE)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, bytes | None]:
    names = draw(st.lists(_names, max_size=12, unique=True))
    return {
        name: draw(st.one_of(st.none(), st.binary(max_size=3000), st.integers(0, 5000).map(lambda n: b"x" * n)))
        for name in names
    }


@given(
    tree=trees(),
    tar_format=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    cuts=st.lists(st.integers(1, 4096), min_size=1, max_size=5),
    part_bytes=st.integers(1, 10_000),
    oid=st.one_of(st.none(), st.integers(1, 2**32 - 1)),
)
@settings(deadline=None)
def test_parts_hold_exactly_the_members(
    tree: dict[str, bytes | None], tar_format: int, cuts: list[int], part_bytes: int, oid: int | None
) -> None:
    sink = split({oid: make_tar(tree, tar_format=tar_format)}, cuts=cuts, part_bytes=part_bytes)
    prefix = "" if oid is None else f"pg_tblspc/{oid}/"
    expected = {prefix + name: content for name, content in tree.items()}
    assert read_all(sink.parts) == expected
    assert sink.files == {name: content for name, content in expected.items() if content is not None}
    assert not sink.control


@given(depth=st.integers(1, 60), length=st.integers(1, 99), oid=st.integers(1, 2**32 - 1))
@settings(deadline=None)
def test_long_names_of_ustar_and_pax(depth: int, length: int, oid: int) -> None:
    name = "/".join(["d" * 9] * depth + ["f" * length])
    for tar_format in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT):
        try:
            data = make_tar({name: b"content"}, tar_format=tar_format)
        except ValueError:  # ustar cannot hold it
            continue
        assert read_all(split({oid: data}).parts) == {f"pg_tblspc/{oid}/{name}": b"content"}
        assert read_all(split({None: data}).parts) == {name: b"content"}


# -- what changes on the way --------------------------------------------------------------------------------------


def test_headers_pass_through_as_they_came() -> None:
    data = make_tar({"base": None, "base/1": None, "base/1/1259": b"a" * 8192})
    parts = split({None: data}).parts
    assert bytes(parts[0][: -len(END_OF_TAR)]) == data[: len(parts[0]) - len(END_OF_TAR)]


def test_pg_control_goes_to_its_own_tar() -> None:
    data = make_tar({"base/1": b"1", CONTROL[0]: CONTROL[1], "global/1213": b"2"})
    sink = split({None: data})
    assert read_all(sink.parts) == {"base/1": b"1", "global/1213": b"2"}
    assert [read_ours(bytes(tar)) for tar in sink.control] == [dict([CONTROL])]
    assert sink.files[CONTROL_FILE] == CONTROL[1]


def test_a_tablespace_has_no_control_file_and_drops_nothing() -> None:
    sink = split({16385: make_tar({CONTROL_FILE: b"a table", "pgbackup_wal/x": b"x"})})
    assert set(read_all(sink.parts)) == {f"pg_tblspc/16385/{CONTROL_FILE}", "pg_tblspc/16385/pgbackup_wal/x"}
    assert not sink.control


def test_left_overs_and_strays_are_dropped() -> None:
    tree: dict[str, bytes | None] = {
        "pgbackup_wal": None,
        "pgbackup_wal/000000010000000000000001": b"w" * 70_000,
        "backup_manifest": b"{}",
        "backup_manifest.old": b"{}",
        "backup_label": b"kept",
        "base/1/pgbackup_wal": b"kept",
    }
    assert set(read_all(split({None: make_tar(tree)}, cut=777).parts)) == {"backup_label", "base/1/pgbackup_wal"}


def test_leading_dots_go_and_symbolic_links_are_not_stored() -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in (".", "./pg_wal", "./pg_wal/archive_status"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        link = tarfile.TarInfo("pg_tblspc/16385")
        link.type, link.linkname = tarfile.SYMTYPE, "/somewhere"
        tar.addfile(link)
    assert read_all(split({None: target.getvalue()}).parts) == {"pg_wal": None, "pg_wal/archive_status": None}


def test_every_archive_begins_a_part_and_a_large_member_has_its_own() -> None:
    big = make_tar({"a": b"a" * 1000, "big": b"b" * 50_000, "c": b"c"})
    sink = split({16385: big, 16386: make_tar({"d": b"d"}), None: make_tar({"e": b"e"})}, part_bytes=10_000)
    names = [set(read_ours(bytes(part))) for part in sink.parts]
    assert names == [
        {"pg_tblspc/16385/a"},
        {"pg_tblspc/16385/big"},
        {"pg_tblspc/16385/c"},
        {"pg_tblspc/16386/d"},
        {"e"},
    ]


def test_the_server_sends_no_end_of_archive() -> None:
    data = make_tar({"base/1": b"x" * 512}).rstrip(b"\0")
    data += bytes(-len(data) % 512)
    assert read_all(split({None: data, 16385: data}).parts) == {
        "base/1": b"x" * 512,
        "pg_tblspc/16385/base/1": b"x" * 512,
    }


def test_base_256_sizes_pass_through() -> None:
    info = tarfile.TarInfo("base/5/16400")
    info.size = 9 << 30
    header = info.tobuf(tarfile.GNU_FORMAT)
    sink = Parts()
    splitter = TarSplitter(sink, 256 << 20)
    splitter.begin_archive(None)
    splitter.feed(memoryview(header))
    splitter.feed(memoryview(bytes(1 << 20)))
    assert sink.parts[0][:512] == header
    with pytest.raises(TarProblem, match="inside a member"):
        splitter.end_archive()


def test_names_that_are_not_utf8_stay_as_they_are() -> None:
    name = b"base/\xff\xfe/1".decode("utf-8", "surrogateescape")
    sink = split({None: make_tar({name: b"1"}), 16385: make_tar({name: b"2"})})
    assert sink.files == {name: b"1", f"pg_tblspc/16385/{name}": b"2"}
    assert sink.parts[0][:9] == b"base/\xff\xfe/1"


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../outside", "base/../../outside"])
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(TarProblem, match="leads out"):
        split({None: make_tar({name: b"x"})})


def test_damaged_streams_are_refused() -> None:
    data = make_tar({"base/1": b"x" * 2000})
    with pytest.raises(TarProblem, match="inside a member"):
        split({None: data[:1000]})
    with pytest.raises(TarProblem, match="checksum"):
        split({None: b"y" + data[1:]})
    with pytest.raises(TarProblem, match="after its end"):
        split({None: data + data[:512]})
    with pytest.raises(TarProblem, match="twice"):
        split({None: make_tar({CONTROL[0]: b"1", "./" + CONTROL[0]: b"2"})})


def test_other_kinds_are_refused() -> None:
    info = tarfile.TarInfo("pipe")
    info.type = tarfile.FIFOTYPE
    with pytest.raises(TarProblem, match="neither a file nor a directory"):
        split({None: info.tobuf(tarfile.USTAR_FORMAT)})
