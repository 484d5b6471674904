"""The WAL reader against real WAL: it finds what pg_waldump finds, and what SQL says it wrote."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pgbackup.core.lsn import Lsn, SegmentName, is_segment_name
from pgbackup.core.wal_records import WalEvent, WalScanner
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.postgres.unprivileged import readable_installation

MIB = 1 << 20
_DUMPED = re.compile(r"rmgr: (\S+)\s+len \(rec/tot\):\s*\d+/\s*\d+, tx:\s*(\d+), lsn: (\S+), prev \S+, desc: (.*)")
_ENDED = {"COMMIT": "commit", "ABORT": "abort", "COMMIT_PREPARED": "commit", "ABORT_PREPARED": "abort"}

WORK = """
CREATE TABLE t (a int, b text);
BEGIN; INSERT INTO t VALUES (1, 'x'); SAVEPOINT a; INSERT INTO t VALUES (2, 'y'); RELEASE a;
SAVEPOINT b; INSERT INTO t VALUES (3, 'z'); COMMIT;
BEGIN; INSERT INTO t VALUES (4, 'x'); ROLLBACK;
BEGIN; INSERT INTO t VALUES (5, 'p'); SAVEPOINT q; CREATE TABLE tt AS SELECT 1; SAVEPOINT r; DROP TABLE tt;
PREPARE TRANSACTION 'one, with a rather long name'; COMMIT PREPARED 'one, with a rather long name';
BEGIN; INSERT INTO t VALUES (6, 'p'); PREPARE TRANSACTION 'two'; ROLLBACK PREPARED 'two';
SELECT pg_create_restore_point('point one');
INSERT INTO t SELECT g, repeat('w', 500) FROM generate_series(1, 8000) g;
SELECT pg_switch_wal();
SELECT pg_create_restore_point('it''s naïve');
CREATE TABLE d (a int PRIMARY KEY, b text);
BEGIN; DROP TABLE d; PREPARE TRANSACTION 'three'; COMMIT PREPARED 'three';
DO $$ BEGIN FOR i IN 1..1500 LOOP INSERT INTO t VALUES (i, 'c'); COMMIT; END LOOP; END $$;
SELECT pg_logical_emit_message(false, 'x', repeat('m', 3000000));
DO $$ BEGIN FOR i IN 1..20000 LOOP INSERT INTO t VALUES (i, repeat('c', i % 900)); END LOOP; END $$;
"""


@pytest.fixture
def worked_server(make_server, pg_major) -> ThrowawayServer:
    settings = {"max_prepared_transactions": 10, "wal_level": "logical", "wal_keep_size": "2GB"}
    server = make_server(pg_major, segment_mb=1, settings=settings)
    for statement in split(WORK):
        server.execute(statement)
    server.configure(max_connections=57)
    server.restart("immediate")
    server.execute("INSERT INTO t VALUES (7, 'end')")
    server.execute("CHECKPOINT")
    server.stop("fast")
    return server


def split(text: str) -> list[str]:
    """One statement each, transactions kept together (COMMIT PREPARED must stand alone)."""
    parts = re.split(r"(?<=;)\n(?=[A-Z])|(?<=;) (?=(?:COMMIT|ROLLBACK) PREPARED)", text.strip())
    joined: list[str] = []
    for part in parts:
        if (
            joined
            and joined[-1].startswith("BEGIN")
            and not re.search(r"(COMMIT|ROLLBACK|'three'|'two'|name');$", joined[-1])
        ):
            joined[-1] += "\n" + part
        else:
            joined.append(part)
    return joined


def wal_files(server: ThrowawayServer) -> list[Path]:
    return sorted(p for p in (server.data_directory / "pg_wal").iterdir() if is_segment_name(p.name))


def scan(server: ThrowawayServer, block_bytes: int) -> tuple[list[WalEvent], WalScanner]:
    scanner = WalScanner()
    events: list[WalEvent] = []
    for path in wal_files(server):
        start = SegmentName.parse(path.name, MIB).start
        data = path.read_bytes()
        for offset in range(0, len(data), block_bytes):
            try:
                events += scanner.feed(data[offset : offset + block_bytes], Lsn(start + offset))
            except ValueError:
                return events, scanner
            if scanner.stopped:
                break
    return events, scanner


@pytest.mark.parametrize("block_bytes", [8192, 128 * 1024, MIB])
def test_the_same_records_as_pg_waldump(worked_server, block_bytes):
    events, scanner = scan(worked_server, block_bytes)
    rows = [(event.kind, event.start, event.xid, event.name) for event in events]
    check_against_what_was_written(events)
    if "pg_waldump" not in worked_server.installation.tools:
        return
    expected, last = dump(worked_server)
    assert rows == expected
    assert scanner.last_record == last


def check_against_what_was_written(events: list[WalEvent]) -> None:
    """For the versions without pg_waldump: points, parameters, and that each prepared transaction is named right."""
    assert [event.name for event in events if event.kind == "restore point"] == ["point one", "it's naïve"]
    assert [event.parameters[0] for event in events if event.kind == "parameters"][-1] == 57
    times = [event.time for event in events if event.time is not None]
    assert times == sorted(times)
    xids = [event.xid for event in events if event.kind in ("commit", "abort")]
    assert all(0 < xid < 100_000 for xid in xids)
    assert len([event for event in events if event.kind == "abort"]) >= 2
    assert len(set(xids)) == len(xids), "a prepared transaction was given another one's number"


def dump(server: ThrowawayServer) -> tuple[list[tuple[str, Lsn, int, str]], Lsn]:
    program = readable_installation(server.installation, server.account).tool("pg_waldump")
    files = wal_files(server)
    used = []
    for path in files:
        # Recycled segments hold older WAL under a newer name.
        if int.from_bytes(path.read_bytes()[8:16], "little") == SegmentName.parse(path.name, MIB).start:
            used.append(path)
    command = [str(program), "-p", str(server.data_directory / "pg_wal"), used[0].name, used[-1].name]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows: list[tuple[str, Lsn, int, str]] = []
    last = Lsn(0)
    for match in filter(None, map(_DUMPED.match, output.splitlines())):
        manager, xid, lsn, text = match.groups()
        last = Lsn.parse(lsn)
        word, _, rest = text.partition(" ")
        if manager == "Transaction" and word in _ENDED:
            prepared = re.match(r"(\d+):", rest) if "PREPARED" in word else None
            rows.append((_ENDED[word], last, int(prepared[1] if prepared else xid), ""))
        elif manager == "XLOG" and word == "RESTORE_POINT":
            rows.append(("restore point", last, 0, rest))
        elif manager == "XLOG" and word == "PARAMETER_CHANGE":
            rows.append(("parameters", last, 0, ""))
    return rows, last


def test_the_first_record_at_or_after_an_lsn(worked_server):
    events, _ = scan(worked_server, MIB)
    wanted = events[len(events) // 2]
    for asked in (wanted.start, wanted.start - 1, Lsn(wanted.start - 7)):
        scanner = WalScanner(not_before=Lsn(asked))
        for path in wal_files(worked_server):
            segment = SegmentName.parse(path.name, MIB)
            if segment.end <= asked:
                continue
            list(scanner.feed(path.read_bytes(), segment.start))
            if scanner.stop is not None:
                break
        assert scanner.stop is not None
        start, end = scanner.stop
        assert asked <= start <= wanted.start
        assert start < end
