"""Whether WAL is what the server wrote, record by record: for WAL that neither compression nor encryption vouches for.

Recovery ends without a word at the first record that does not have its checksum. It goes page by page, for each page
says how much of a record that runs on is still to come: so a length that was changed does not hide what follows it.
"""

from __future__ import annotations

import struct

from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.wal_page import PAGE_BYTES, SHORT_HEADER_BYTES
from pgbackup.core.wal_records import WalScanner
from pgbackup.repository.manifest import FileChecksum

_HEADER = struct.Struct("<HHIQ")


class RecordsCheck:
    """Give it WAL in order: ``begin`` a segment, ``feed`` its bytes, ``end`` it. Raises ValueError at damage.

    A record that began before the first byte is not judged, nor one of which the end never comes.
    """

    def __init__(self) -> None:
        self._scanner = WalScanner(crc=record_crc)
        self._position = Lsn(0)
        self._rest = b""
        self._is_over = False

    def begin(self, segment: SegmentName) -> None:
        if self._is_over and not self._scanner.switched:
            raise ValueError(f"WAL ends before {segment.start}, and goes on there")
        self._position, self._rest, self._is_over = segment.start, b"", False

    def feed(self, data: bytes) -> None:
        data = self._rest + data
        whole = len(data) - len(data) % PAGE_BYTES
        view = memoryview(data)
        for offset in range(0, whole, PAGE_BYTES):
            self._page(view[offset : offset + PAGE_BYTES])
        self._rest = data[whole:]

    def end(self) -> None:
        """The last page may be cut."""
        if len(self._rest) > SHORT_HEADER_BYTES:
            self._page(memoryview(self._rest))

    def _page(self, page: memoryview) -> None:
        if not self._is_over:
            for _ in self._scanner.feed(page, self._position):
                pass
            self._is_over = self._scanner.stopped
        else:
            magic, _, _, address = _HEADER.unpack_from(page)
            if magic and address == self._position:
                raise ValueError(f"WAL ends before {self._position}, and goes on there")
        self._position = Lsn(self._position + len(page))


def record_crc(record: memoryview) -> int:
    """Postgres' CRC of a WAL record: what follows the header, then the header up to the CRC."""
    checksum = FileChecksum("CRC32C")
    checksum.update(record[24:])
    checksum.update(record[:20])
    return int.from_bytes(bytes.fromhex(checksum.hexdigest()), "little")
