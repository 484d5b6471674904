"""A minimal WAL reader: where transactions end, where restore points are, what recovery will need.

Walks the records of consecutive segments and picks out the few kinds at which recovery can stop or which change what
it needs. Sources in Postgres: src/include/access/xlogrecord.h (``XLogRecord``: total length, xid, previous, info,
resource manager, CRC; records begin at multiples of 8), src/include/access/xact.h (``xl_xact_commit`` and the parts
that its ``xinfo`` announces), src/include/access/xlog_internal.h (``xl_restore_point``, ``xl_parameter_change``),
src/include/catalog/pg_control.h (``XLOG_*``). The layouts read here are the same from 14 to 18, except the size of an
entry of dropped statistics.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pgbackup.core.lsn import Lsn
from pgbackup.core.wal_page import MAGICS, PageBodies, strip_headers

EventKind = Literal["commit", "abort", "restore point", "parameters"]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_RECORD = struct.Struct("<IIQBB")
_HEADER_BYTES = 24
_CRC_OFFSET = 20
_NEVER = 1 << 62
_MAX_RECORD_BYTES = 1020 << 20

_RM_XLOG, _RM_XACT = 0, 1
_XLOG_SWITCH, _XLOG_PARAMETER_CHANGE, _XLOG_RESTORE_POINT = 0x40, 0x60, 0x70
_XACT_KINDS: dict[int, EventKind] = {0x00: "commit", 0x20: "abort", 0x30: "commit", 0x40: "abort"}
_XACT_OPMASK, _XACT_HAS_INFO = 0x70, 0x80
_XACT_OF_PREPARED = (0x30, 0x40)
_HAS_DBINFO, _HAS_SUBXACTS, _HAS_RELFILES, _HAS_INVALS, _HAS_TWOPHASE, _HAS_DROPPED = 1, 2, 4, 8, 16, 256
_DATA_SHORT, _DATA_LONG, _ORIGIN, _TOPLEVEL_XID = 255, 254, 253, 252
_U32 = struct.Struct("<I")
_TIME = struct.Struct("<q")
_PARAMETERS = struct.Struct("<5i")


@dataclass(frozen=True, slots=True)
class WalEvent:
    """A record at which recovery could stop (``start`` to ``end``), or ``parameters``: settings that a standby needs.

    ``time`` is the server's clock when the transaction ended or the restore point was made.
    """

    kind: EventKind
    start: Lsn
    end: Lsn
    xid: int = 0
    time: datetime | None = None
    name: str = ""
    parameters: tuple[int, ...] = ()


class WalScanner:
    """Feed it consecutive WAL. ``last_record`` is where the newest complete record begins, ``end`` where it ends.

    ``stopped``: the rest of this segment holds nothing (a switch to the next one: ``switched``; or the end of WAL);
    feed the next segment, if there is one. ``not_before``: keep in ``stop`` the first complete record that begins at or
    after that LSN, as (start, end). ``crc``: computes the CRC-32C of a record's content and header, to check every
    record by; the first one that does not fit, or does not go on, raises ValueError. Without it records are believed.
    """

    def __init__(self, not_before: Lsn | None = None, *, crc: Callable[[memoryview], int] | None = None) -> None:
        self.last_record: Lsn | None = None
        self.end: Lsn | None = None
        self.stop: tuple[Lsn, Lsn] | None = None
        self.stopped = False
        self.switched = False
        self._not_before = not_before
        self._crc = crc
        self._major: int | None = None
        self._begun: Lsn | None = None
        self._partial = bytearray()

    def feed(self, data: bytes | memoryview, start: Lsn) -> Iterator[WalEvent]:
        """The events of whole pages from ``start`` on (only the last one may be cut); consume it wholly.

        A record that runs on into the next block comes with that one. Raises ValueError for what is no WAL.
        """
        pages = strip_headers(data, start)
        self.stopped = self.switched = False
        if self._major is None:
            self._major = MAGICS.get(int.from_bytes(data[:2], "little"), max(MAGICS.values()))
        offset = pages.continued_bytes
        self._check_goes_on(pages)
        if self._begun is None or offset == 0:
            self._forget()
        elif offset > len(pages.body):
            self._remember(pages.body)
        else:
            self._remember(pages.body[:offset])
            yield from self._record(self._begun, pages.end_lsn(offset), bytes(self._partial))
            self._forget()
        yield from self._walk(pages, _align(offset))

    def _walk(self, pages: PageBodies, offset: int) -> Iterator[WalEvent]:
        """The records that begin in this block; the last one may run on into the next."""
        body, size = pages.body, len(pages.body)
        limit = pages.offset_at(self._not_before) if self._not_before is not None else size
        breaks = [*pages.overwritten, _NEVER]
        unpack = _RECORD.unpack_from
        last: tuple[int, int] | None = None
        while offset + _HEADER_BYTES <= size:
            total, _, _, info, manager = unpack(body, offset)
            if not _HEADER_BYTES <= total <= _MAX_RECORD_BYTES:
                break
            end = offset + total
            while breaks[0] <= offset:
                breaks.pop(0)
            if end > breaks[0]:
                offset = breaks[0]
                continue
            if end > size:
                break
            if offset >= limit and self.stop is None:
                self.stop = (pages.lsn(offset), pages.end_lsn(end))
            last = (offset, end)
            if self._crc is not None:
                self._check(pages.lsn(offset), body[offset:end])
            if manager <= _RM_XACT:
                yield from self._event(pages.lsn(offset), pages.end_lsn(end), body[offset:end])
                if manager == _RM_XLOG and info & 0xF0 == _XLOG_SWITCH:
                    self.stopped = self.switched = True
                    break
            offset = _align(end)
        if last is not None:
            self.last_record, self.end = pages.lsn(last[0]), pages.end_lsn(last[1])
        if not self.stopped and offset < size:
            self._end_of_block(pages, offset)

    def _end_of_block(self, pages: PageBodies, offset: int) -> None:
        """The walk ended before the end of the block: a record runs on, or WAL ends here."""
        if pages.whole and any(pages.body[offset : offset + 4]):
            self._begun = pages.lsn(offset)
            self._remember(pages.body[offset:])
        else:
            self.stopped = True

    def _record(self, start: Lsn, end: Lsn, record: bytes) -> Iterator[WalEvent]:
        """A record that ended in a later block than it began."""
        if self._crc is not None:
            self._check(start, record)
        self.last_record, self.end = start, end
        if self.stop is None and self._not_before is not None and start >= self._not_before:
            self.stop = (start, end)
        yield from self._event(start, end, record)

    def _event(self, start: Lsn, end: Lsn, record: bytes) -> Iterator[WalEvent]:
        total, xid, _, info, manager = _RECORD.unpack_from(record)
        if total != len(record):
            return
        if manager == _RM_XACT:
            event = _transaction_end(start, end, xid, info, record, self._major or 0)
        elif manager == _RM_XLOG:
            event = _of_xlog(start, end, info & 0xF0, record)
        else:
            event = None
        if event is not None:
            yield event

    def _check_goes_on(self, pages: PageBodies) -> None:
        """Of a record that runs on, a page says how much is still to come; but for one that a crash left unfinished."""
        if self._crc is None or self._begun is None or 0 in pages.overwritten:
            return
        (total,) = _U32.unpack_from(self._partial)
        if pages.continued_bytes != total - len(self._partial):
            raise ValueError(f"the record at {self._begun} does not go on at {pages.start}")

    def _check(self, start: Lsn, record: bytes) -> None:
        assert self._crc is not None
        (stored,) = _U32.unpack_from(record, _CRC_OFFSET)
        view = memoryview(record)
        if self._crc(view) != stored:
            raise ValueError(f"the record at {start} does not have its checksum")

    def _remember(self, data: bytes) -> None:
        """Keep the beginning of a record for the next block; of the kinds that nobody reads only the header."""
        self._partial += data
        if (
            self._crc is None
            and len(self._partial) > _HEADER_BYTES
            and _RECORD.unpack_from(self._partial)[4] > _RM_XACT
        ):
            del self._partial[_HEADER_BYTES:]

    def _forget(self) -> None:
        self._begun = None
        self._partial.clear()


def _align(offset: int) -> int:
    return (offset + 7) & ~7


def _main_data(record: bytes) -> bytes:
    """The main data of a record without block references; empty when it has some or none."""
    position = _HEADER_BYTES
    while position < len(record):
        identifier = record[position]
        if identifier == _DATA_SHORT:
            return record[position + 2 :]
        if identifier == _DATA_LONG:
            return record[position + 5 :]
        if identifier == _ORIGIN:
            position += 3
        elif identifier == _TOPLEVEL_XID:
            position += 5
        else:
            return b""
    return b""


def _transaction_end(start: Lsn, end: Lsn, xid: int, info: int, record: bytes, major: int) -> WalEvent | None:
    kind = _XACT_KINDS.get(info & _XACT_OPMASK)
    data = _main_data(record)
    if kind is None or len(data) < _TIME.size:
        return None
    if info & _XACT_OPMASK in _XACT_OF_PREPARED:
        xid = _prepared_xid(data, major) or xid
    return WalEvent(kind, start, end, xid, _time(data))


def _prepared_xid(data: bytes, major: int) -> int:
    """The transaction that COMMIT PREPARED or ROLLBACK PREPARED ended: behind everything else in the record."""
    try:
        (xinfo,) = _U32.unpack_from(data, 8)
        position = 12 + (8 if xinfo & _HAS_DBINFO else 0)
        dropped = (_HAS_DROPPED, 16 if major >= 18 else 12)
        for flag, entry_bytes in ((_HAS_SUBXACTS, 4), (_HAS_RELFILES, 12), dropped, (_HAS_INVALS, 16)):
            if xinfo & flag:
                position += 4 + _U32.unpack_from(data, position)[0] * entry_bytes
        return int(_U32.unpack_from(data, position)[0]) if xinfo & _HAS_TWOPHASE else 0
    except struct.error:
        return 0


def _of_xlog(start: Lsn, end: Lsn, operation: int, record: bytes) -> WalEvent | None:
    if operation not in (_XLOG_RESTORE_POINT, _XLOG_PARAMETER_CHANGE):
        return None
    data = _main_data(record)
    if operation == _XLOG_RESTORE_POINT and len(data) > _TIME.size:
        name = data[_TIME.size :].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        return WalEvent("restore point", start, end, time=_time(data), name=name)
    if operation == _XLOG_PARAMETER_CHANGE and len(data) >= _PARAMETERS.size:
        return WalEvent("parameters", start, end, parameters=_PARAMETERS.unpack_from(data))
    return None


def _time(data: bytes) -> datetime:
    """A TimestampTz: microseconds since 2000-01-01 UTC."""
    try:
        return _EPOCH + timedelta(microseconds=_TIME.unpack_from(data)[0])
    except OverflowError:
        return _EPOCH
