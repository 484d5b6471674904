"""A tool that lies, hangs, forks, floods, fails or is killed: nothing is confirmed that is not in the repository."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgbackup.core.lsn import MIB
from pgbackup.core.timeline import MAX_HISTORY_BYTES
from pgbackup.engines.wal.events import Durable, Failed
from pgbackup.engines.wale import shipping, tool
from pgbackup.errors import ToolError
from pgbackup.repository import keys
from pgbackup.repository.wal_objects import stored_keys
from tests.contracts.engine import Shipment, made_segment
from tests.fix_app import MakeProgram
from tests.fix_postgres import ServerFactory
from tests.fix_pretended_tool import Pretended
from tests.streaming import flush_lsn, streaming
from tests.tool_engine import fill, pretend_tool, with_tool
from tests.waiting import wait_for

pytestmark = pytest.mark.not_for_walg("what a pretended tool leaves")


@pytest.fixture
def shipment(pretended: Pretended) -> Iterator[Shipment]:
    made = Shipment(pretended.engine, pretended.store)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("lie", "said that 000000010000000000000007 was pushed, and the repository does not list it"),
        ("empty", "said that 000000010000000000000007 was pushed, and the repository does not list it"),
        ("fail", r"wal-push failed \(exit 1\): \n  pretend: the store said 503 Slow Down"),
        ("torn", "wal-push was killed by SIGKILL"),
    ],
)
def test_what_is_not_stored_is_not_durable(pretended: Pretended, shipment: Shipment, mode: str, message: str) -> None:
    pretended.mode(mode)
    shipment.send(*made_segment(7))
    failed = shipment.outcome()
    assert isinstance(failed, Failed)
    with pytest.raises(ToolError, match=message):
        raise failed.error
    assert sum(shipment.stats.totals().errors.values()) == 1
    assert shipment.uploads.has_room


def test_the_rest_of_a_killed_push_is_pushed_again(pretended: Pretended, shipment: Shipment) -> None:
    name, data = made_segment(7)
    pretended.mode("torn")
    shipment.send(name, data)
    assert isinstance(shipment.outcome(), Failed)
    assert stored_keys(pretended.store, str(name))
    pretended.mode("good")
    shipment.send(name, data)
    assert isinstance(shipment.outcome(), Durable)
    assert pretended.store.get(stored_keys(pretended.store, str(name))[0]) == data


@pytest.mark.parametrize("stored", [b"", "half"], ids=["empty", "half"])
def test_what_is_no_segment_at_all_is_pushed_again(pretended: Pretended, shipment: Shipment, stored: object) -> None:
    """Uncompressed, half a segment reads well; it was called another cluster's."""
    name, data = made_segment(7)
    pretended.mode("blind")
    pretended.store.put(keys.wal(str(name), ""), data[: len(data) // 2] if stored else b"")
    shipment.send(name, data)
    assert isinstance(shipment.outcome(), Durable)
    assert pretended.store.get(keys.wal(str(name), "")) == data


def test_a_history_that_ours_begins_with_is_anothers(pretended: Pretended) -> None:
    """Of a branch that left the same timeline: it must not be replaced."""
    theirs = b"1\t0/3000000\tx\n"
    pretended.store.put(keys.wal("00000003.history", ""), theirs)
    shipping_ = pretended.engine.shipping(pretended.store)
    assert shipping_.put_history("00000003.history", theirs + b"2\t0/4000000\ty\n") == theirs
    assert pretended.store.get(keys.wal("00000003.history", "")) == theirs


def test_a_stop_leaves_no_tool_that_hangs(
    make_server: ServerFactory, make_program: MakeProgram, tmp_path: Path
) -> None:
    """Pushes have as long as a stop may take; what hangs on was left running for good."""
    server, mode = make_server(), tmp_path / "mode"
    mode.write_text("hang")
    tool = pretend_tool(tmp_path)
    settings = {"PRETEND_MODE": str(mode), "PGBACKUP_STOP_TIMEOUT": "10s", "PGBACKUP_SCHEDULE": "every 12 hours"}
    resident = with_tool(make_program, server, "wal-g", tool, **settings).run()
    wait_for(lambda: server.execute("SELECT active FROM pg_replication_slots") == [(True,)], timeout=60)
    fill(server, 0, 10)
    wait_for(lambda: _children_of(resident.process.pid), timeout=60)
    left = _children_of(resident.process.pid)
    resident.terminate()
    # A killed one is somebody else's to bury once its parent has ended: that takes a moment.
    wait_for(lambda: not any(_is_alive(pid) for pid in left), timeout=20)


def _is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _children_of(pid: int) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and (folder / "stat").read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(folder.name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("mode", ["flood", "fork"])
def test_what_it_does_besides_does_no_harm(pretended: Pretended, shipment: Shipment, mode: str) -> None:
    pretended.mode(mode)
    shipment.send(*made_segment(7))
    assert isinstance(shipment.outcome(), Durable)


def test_a_history_of_any_size_is_read_in_part(pretended: Pretended) -> None:
    """Who can write to the repository decides how large it is."""
    pretended.store.put(keys.wal("00000002.history", ""), bytes(64 << 20))
    tracemalloc.start()
    try:
        stored = pretended.engine.shipping(pretended.store).put_history("00000002.history", b"1\t0/3000000\tx\n")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stored == bytes(MAX_HISTORY_BYTES)
    assert peak < 16 << 20


def test_one_that_hangs_is_bounded_and_the_spool_with_it(
    pretended: Pretended, shipment: Shipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended.mode("hang")
    shipment.send(*made_segment(7))
    assert shipment.uploads.has_room
    shipment.send(*made_segment(8))
    assert not shipment.uploads.has_room, "two are on their way: the server has to wait"
    assert len(pretended.spooled()) == 2
    assert shipment.uploads.oldest_job_seconds() > 0
    begin = time.monotonic()
    shipment.close()
    assert time.monotonic() - begin < 2 * tool.TERM_SECONDS + 2
    assert pretended.spooled() == []


def test_one_that_hangs_is_ended_in_time(
    pretended: Pretended, shipment: Shipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "_SECONDS", 1.0)
    monkeypatch.setattr(shipping, "_SLOWEST_BYTES_PER_SECOND", 1 << 40)
    pretended.mode("hang")
    shipment.send(*made_segment(7))
    failed = shipment.outcome()
    assert isinstance(failed, Failed)
    assert "did not end within" in str(failed.error)


def test_a_lie_confirms_nothing_to_the_server(pretended: Pretended, make_server: ServerFactory) -> None:
    server = make_server()
    pretended.mode("lie")
    with streaming(server, pretended.store, shipping=pretended.engine.shipping(pretended.store)) as stream:
        stream.wait_streaming()
        fill(server, 0, 100)
        position = stream.wait_for(lambda position: "does not list it" in position.problem)
        assert position.permanent, "a finding that somebody has to look at"
        begun = position.began
        slot = "SELECT restart_lsn::text FROM pg_replication_slots"
        held = server.execute(slot)
        fill(server, 100, 200)
        assert stream.progress.get().confirmed <= begun
        assert server.execute(slot) == held, "the slot keeps what is not stored"


def test_a_failing_tool_is_tried_again_and_back_pressure_reaches_the_slot(
    pretended: Pretended, make_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "_SECONDS", 25.0)
    monkeypatch.setattr(shipping, "_SLOWEST_BYTES_PER_SECOND", 1 << 40)
    server = make_server()
    pretended.mode("hang")
    with streaming(server, pretended.store, shipping=pretended.engine.shipping(pretended.store)) as stream:
        stream.wait_streaming()
        for begin in range(0, 600, 100):
            fill(server, begin, begin + 100)
        end = flush_lsn(server)
        time.sleep(1.5)
        assert len(pretended.spooled()) <= 3, "two on their way, and the one that is received"
        assert stream.progress.get().received < end
        begin_stop = time.monotonic()
        server.stop("fast")
        assert time.monotonic() - begin_stop < 30, "15 s of standing still, and then some"
        pretended.mode("good")
        server.start()
        stream.wait_for(lambda position: position.whole >= end // (16 * MIB) * (16 * MIB), timeout=90)
