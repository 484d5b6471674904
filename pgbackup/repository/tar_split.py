"""Splits the server's tar archives at member boundaries into parts: each part a complete tar of its own.

A pure transformer: ``feed`` takes the bytes as they arrive, the sink gets the parts' bytes, and every file's content
as it passes. What changes on the way (repository layout of WAL-G's remote mode, with its traps avoided):

* members of a tablespace's archive get their place below ``pg_tblspc/<oid>/``;
* a leading ``./`` goes, so that member name and key in the file list are the same;
* ``global/pg_control`` goes to a tar of its own, which is restored last: what is interrupted can never start;
* left-overs of an earlier restore of ours and stray manifests are dropped, as are symbolic links: the server sends
  tablespace_map instead;
* every part ends with the two zero blocks; a member larger than a part gets a part of its own.

Headers pass through as they came unless the name changes; content is neither copied nor looked at. The server's own
names fit a plain header; pax headers and GNU long names are understood all the same.
"""

from __future__ import annotations

from typing import Protocol

from pgbackup.core.backup import CONTROL_FILE
from pgbackup.repository.tar_header import (
    BLOCK_BYTES,
    MAX_EXTENSION_BYTES,
    Header,
    TarProblem,
    decode_name,
    normal_name,
    parse_header,
    parse_pax,
)
from pgbackup.repository.tar_rename import renamed

DROPPED_FOLDER = "pgbackup_wal"
DROPPED_FILES = "backup_manifest"
END_OF_TAR = bytes(2 * BLOCK_BYTES)
_ZERO_BLOCK = bytes(BLOCK_BYTES)
_EXTENSIONS = frozenset((b"x", b"X", b"L", b"K"))


def is_dropped(path: str) -> bool:
    """Whether a path below the data directory is never stored, although the server's manifest may name it."""
    return path.split("/", 1)[0] == DROPPED_FOLDER or ("/" not in path and path.startswith(DROPPED_FILES))


class TarSink(Protocol):
    """Receives what a splitter makes, in order."""

    def open_part(self, *, control: bool) -> None:
        """A new tar begins: the next data part, or the one that holds only pg_control."""

    def write(self, data: bytes | memoryview) -> None:
        """Bytes of the tar that is open; what is a file's content comes to ``write_content`` instead."""

    def close_part(self) -> None:
        """The tar that is open is complete."""

    def begin_file(self, name: str, header: Header) -> None:
        """A regular file begins, under its name below the data directory."""

    def write_content(self, data: memoryview) -> None:
        """Bytes of the tar that is open, and content of the file that began last."""

    def end_file(self) -> None:
        """The file is complete."""


class TarSplitter:
    """See the module's docstring. ``part_bytes`` is the size of a part, headers and padding counted."""

    def __init__(self, sink: TarSink, part_bytes: int) -> None:
        self._sink = sink
        self._part_bytes = part_bytes
        self._prefix = ""
        self._header = bytearray()
        self._body = 0
        self._padding = 0
        self._written: int | None = None
        self._extension: _Extension | None = None
        self._is_file = self._drop = self._is_control = self._ended = False
        self.has_control = False
        """Whether global/pg_control has passed; without it nothing can be restored."""

    def begin_archive(self, oid: int | None) -> None:
        """An archive begins: the data directory's (None) or a tablespace's; it always begins a new part."""
        self._prefix = "" if oid is None else f"pg_tblspc/{oid}/"
        self._ended = False

    def feed(self, data: memoryview) -> None:
        """The next bytes of the archive. Raises TarProblem when they are no tar that we can follow."""
        position, end = 0, len(data)
        if self._is_file and self._body > end:  # nearly every message: nothing but content of one file
            self._body -= end
            self._sink.write_content(data)
            return
        while position < end:
            if self._body:
                step = min(self._body, end - position)
                self._on_body(data if step == end else data[position : position + step])
            elif self._padding:
                step = min(self._padding, end - position)
                self._on_padding(data[position : position + step])
            else:
                step = min(BLOCK_BYTES - len(self._header), end - position)
                self._header += data[position : position + step]
                if len(self._header) == BLOCK_BYTES:
                    block, self._header = bytes(self._header), bytearray()
                    self._on_header(block)
            position += step

    def end_archive(self) -> None:
        """The archive is complete. Raises TarProblem when a member is not."""
        if self._body or self._padding or self._header or self._extension:
            raise TarProblem("the server's tar ends inside a member")
        self._close()

    # -- members --------------------------------------------------------------------------------------------------

    def _on_header(self, block: bytes) -> None:
        if block == _ZERO_BLOCK:
            self._ended = True
            return
        if self._ended:
            raise TarProblem("the server's tar goes on after its end")
        header = parse_header(block)
        self._drop = self._is_file = self._is_control = False
        if header.type_flag in _EXTENSIONS:
            self._begin_extension(block, header)
            return
        extension, self._extension = self._extension, None
        if extension is not None:
            header.apply(extension.records)
        self._body = header.data_bytes
        self._padding = -self._body % BLOCK_BYTES
        name = normal_name(header.name)
        self._drop = self._is_unwanted(name, header)
        if not self._drop:
            self._begin_member(name, block, header, extension)
        if not self._body:
            self._end_member()

    def _is_unwanted(self, name: str, header: Header) -> bool:
        if header.kind == "symlink" or (not self._prefix and (not name or is_dropped(name))):
            return True
        if header.kind not in ("file", "directory"):
            raise TarProblem(f"member {header.name!r} is neither a file nor a directory")
        return False

    def _begin_member(self, name: str, block: bytes, header: Header, extension: _Extension | None) -> None:
        self._is_file = header.kind == "file"
        full_name = self._prefix + name
        stored_name = full_name if self._is_file else full_name.rstrip("/") + "/"
        self._is_control = full_name == CONTROL_FILE
        if stored_name != header.name:
            block = renamed(block, stored_name, extension.records if extension else {})
        elif extension is not None:
            block = bytes(extension.raw) + block
        total = len(block) + self._body + self._padding
        if self._is_control or (self._written is not None and self._written + total > self._part_bytes):
            self._close()
        self._write_header(block, total)
        if self._is_file:
            self._sink.begin_file(full_name, header)

    def _write_header(self, block: bytes, member_bytes: int) -> None:
        if self._is_control:
            if self.has_control:
                raise TarProblem(f"the server sent {CONTROL_FILE} twice")
            self.has_control = True
        if self._written is None:
            self._sink.open_part(control=self._is_control)
            self._written = 0
        self._sink.write(block)
        self._written += member_bytes

    def _on_body(self, data: memoryview) -> None:
        self._body -= len(data)
        if self._extension is not None:
            self._extension.add(data)
        elif self._is_file:
            self._sink.write_content(data)
        elif not self._drop:
            self._sink.write(data)
        if not self._body and not self._padding:
            self._end_member()

    def _on_padding(self, data: memoryview) -> None:
        self._padding -= len(data)
        if self._extension is not None:
            self._extension.add_padding(data)
        elif not self._drop:
            self._sink.write(data)
        if not self._padding:
            self._end_member()

    def _end_member(self) -> None:
        if self._extension is not None:
            self._extension.end_record()
        if self._is_file:
            self._sink.end_file()
            self._is_file = False
        if self._is_control:
            self._close()
            self._is_control = False

    def _close(self) -> None:
        if self._written is not None:
            self._sink.write(END_OF_TAR)
            self._sink.close_part()
            self._written = None

    def _begin_extension(self, block: bytes, header: Header) -> None:
        if header.size_bytes > MAX_EXTENSION_BYTES:
            raise TarProblem(f"an extended header of {header.size_bytes} bytes")
        self._extension = self._extension or _Extension()
        self._extension.begin_record(block, header.type_flag)
        self._body = header.size_bytes
        self._padding = -self._body % BLOCK_BYTES
        if not self._body:
            self._end_member()


class _Extension:
    """The pax headers and GNU long names before a member: as they came, and what they say."""

    def __init__(self) -> None:
        self.raw = bytearray()
        self.records: dict[str, str] = {}
        self._type_flag = b""
        self._data = bytearray()

    def begin_record(self, block: bytes, type_flag: bytes) -> None:
        self.raw += block
        self._type_flag = type_flag
        self._data = bytearray()

    def add(self, data: memoryview) -> None:
        self.raw += data
        self._data += data

    def add_padding(self, data: memoryview) -> None:
        self.raw += data

    def end_record(self) -> None:
        """Read what has come. Raises TarProblem."""
        data = bytes(self._data)
        if self._type_flag in (b"L", b"K"):
            keyword = "path" if self._type_flag == b"L" else "linkpath"
            self.records[keyword] = decode_name(data.split(b"\0", 1)[0])
        else:
            self.records.update(parse_pax(data))
