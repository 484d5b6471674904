"""A tool that hangs, forks, floods, dies: every run ends in time, leaves no process, no zombie and no descriptor."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgbackup.engines.wale.tool import Outcome, run_program
from pgbackup.engines.wale.tool_output import STDOUT_BYTES, TAIL_BYTES
from pgbackup.engines.wale.tool_processes import MARK, end_orphaned, own_children
from tests.fix_pretended_tool import living
from tests.waiting import wait_for

BAD_TOOL = Path(__file__).parents[3] / "data" / "bad_tool.py"
ENV = {"PATH": os.environ["PATH"], "A_SECRET": "swordfish"}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No child, no zombie, no descriptor and no thread more than before."""
    files, threads = _open_files(), threading.active_count()
    yield
    deadline = time.monotonic() + 20
    # Fewer is fine: a thread of an earlier test may end meanwhile.
    while (_open_files() > files or threading.active_count() > threads) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _open_files() <= files
    assert threading.active_count() <= threads
    # Other workers run other tools meanwhile.
    assert living(Path(BAD_TOOL.name)) == []
    assert _zombies() == []
    assert not own_children()


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _zombies() -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and parent == str(os.getpid()):
            found.append(folder.name)
    return found


def run(what: str, *, timeout: float = 20, stop: threading.Event | None = None, **options: object) -> Outcome:
    return run_program(
        [sys.executable, BAD_TOOL, what],
        env=ENV,
        timeout_seconds=timeout,
        stop=stop,
        **options,  # type: ignore[arg-type]
    )


def test_a_good_run_has_its_output_and_its_children_done() -> None:
    outcome = run("slow_child")
    assert outcome.ok
    assert (outcome.stdout, outcome.stderr, outcome.left) == ("done\n", "", 0)


def test_a_failure_has_status_and_last_words() -> None:
    outcome = run("fails")
    assert (outcome.status, outcome.ending, outcome.stderr) == (1, "exit", "something is wrong")
    assert not outcome.ok


def test_one_that_hangs_is_ended_in_time() -> None:
    begin = time.monotonic()
    outcome = run("hang", timeout=5)
    assert (outcome.status, outcome.ending) == (-15, "timeout")
    assert time.monotonic() - begin < 20
    assert outcome.stdout == "begun\n"


def test_one_that_does_not_obey_is_killed_with_its_child() -> None:
    outcome = run("deaf", timeout=5)
    assert (outcome.status, outcome.ending) == (-9, "timeout")


def test_a_stop_ends_it_at_once() -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    begin = time.monotonic()
    assert run("hang", stop=stop).ending == "stop"
    assert time.monotonic() - begin < 15


def test_children_that_were_left_are_ended_whether_in_the_group_or_not() -> None:
    begin = time.monotonic()
    outcome = run("fork")
    assert outcome.ok
    assert outcome.left == 2
    assert "left two behind" in outcome.stderr
    assert time.monotonic() - begin < 19, "it was not waited for"


def test_a_flood_is_bounded() -> None:
    outcome = run("flood")
    assert outcome.status == 3
    assert len(outcome.stdout) <= STDOUT_BYTES
    assert len(outcome.stderr) <= TAIL_BYTES
    assert outcome.stderr.endswith("the last words")


def test_what_is_no_text_is_shown_as_far_as_it_is() -> None:
    outcome = run("rubbish")
    assert outcome.status == 4
    assert outcome.stderr.startswith("caf\N{REPLACEMENT CHARACTER}")


def test_one_that_is_killed() -> None:
    outcome = run("suicide")
    assert (outcome.status, outcome.ending, outcome.stderr) == (-9, "exit", "good bye")


def test_one_that_closes_its_outputs_is_waited_for() -> None:
    outcome = run("closes")
    assert outcome.ok
    assert outcome.seconds > 0.25


def test_it_has_the_given_environment_no_terminal_and_a_group_of_its_own() -> None:
    outcome = run("environment")
    names = {line.partition("=")[0] for line in outcome.stdout.splitlines()}
    assert {"PATH", "A_SECRET", MARK} <= names
    assert names <= {"PATH", "A_SECRET", MARK, "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}
    assert outcome.stderr == "False False True"


def test_a_program_that_is_not_there_or_cannot_be_started(tmp_path: Path) -> None:
    assert run_program([tmp_path / "nobody"], env=ENV, timeout_seconds=5).status == 127
    script = tmp_path / "moved"
    script.write_text("#!/no/such/python\n")
    script.chmod(0o755)
    outcome = run_program([script], env=ENV, timeout_seconds=5)
    assert outcome.status in (126, 127)
    assert outcome.stderr


def test_what_the_watcher_raises_ends_the_tool() -> None:
    def watch(active: int) -> None:
        if active:
            raise LookupError("enough")

    with pytest.raises(LookupError):
        run("hang", watch=watch)


def test_many_at_once_from_threads() -> None:
    found: list[Outcome] = []
    threads = [threading.Thread(target=lambda: found.append(run("fails"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.status for outcome in found] == [1] * 6


def test_what_a_killed_pgbackup_left_running_is_ended_by_the_next_one(tmp_path: Path) -> None:
    """Nothing tells a tool that who waited for it was killed; one that hangs would stay for ever."""
    program = (
        "import sys; from pgbackup.engines.wale.tool import run_program; "
        "run_program([sys.executable, *sys.argv[1:]], env={}, timeout_seconds=600)"
    )

    def left(name: str) -> int:
        return len(living(tmp_path / name))

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", program, str(BAD_TOOL), "deaf", str(tmp_path / name)]
        return subprocess.Popen(command, cwd=Path(__file__).parents[4])

    with start("first") as first, start("second") as second:
        try:
            wait_for(lambda: left("first") == left("second") == 2, timeout=30)
            end_orphaned()
            assert left("first") == left("second") == 2
            first.kill()
            first.wait()
            assert [words[-2] for words in end_orphaned() if words[-1:] == [str(tmp_path / "first")]] == ["deaf"] * 2
            assert left("first") == 0
            assert left("second") == 2, "that of one that lives is left alone"
        finally:
            second.kill()
            second.wait()
            end_orphaned()
    assert left("second") == 0
