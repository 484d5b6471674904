"""A process to which orphans come reaps them, and leaves its own children to those who wait for them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

_PR_SET_CHILD_SUBREAPER = 36
_BEGIN = f"""
import ctypes, json, os, subprocess, sys, threading, time
assert ctypes.CDLL(None).prctl({_PR_SET_CHILD_SUBREAPER}, 1, 0, 0, 0) == 0
from pgbackup.supervisor.orphans import OrphanReaper, is_reaper
"""

_STRESS = (
    _BEGIN
    + """
assert is_reaper()
ORPHANS = 1000
MAKE_ORPHANS = "import os\\nfor n in range(250):\\n    if os.fork() == 0: os._exit(9)"
wrong, right = [], [0]
over = threading.Event()

def run_children(number):
    while not over.is_set():
        code = subprocess.run(["sh", "-c", f"exit {number}"]).returncode
        if code == number:
            right[0] += 1
        else:
            wrong.append(code)

late = subprocess.Popen(["sh", "-c", "exit 77"])   # ended long before somebody asks
forked = os.fork()
if forked == 0:
    os._exit(78)
threads = [threading.Thread(target=run_children, args=(40 + n,)) for n in range(4)]
for thread in threads:
    thread.start()
reaper = OrphanReaper(lambda: {forked})
reaped, deadline, makers = 0, time.monotonic() + 90, []
for _ in range(4):
    makers.append(subprocess.Popen([sys.executable, "-c", MAKE_ORPHANS]))
while reaped < ORPHANS and time.monotonic() < deadline:
    reaped += reaper.sweep()
    time.sleep(0.1)
for _ in range(5):
    reaped += reaper.sweep()
    time.sleep(0.1)
over.set()
for thread in threads:
    thread.join()
print(json.dumps({
    "reaped": reaped, "wrong": wrong, "right": right[0], "late": late.wait(), "makers": [m.wait() for m in makers],
    "forked": os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]),
}))
"""
)

_ADOPTED = (
    _BEGIN
    + """
# An orphan that lives on is left alone, and reaped when it ends.
maker = "import os, time\\nif os.fork() == 0:\\n    time.sleep(1.5)\\n    os._exit(1)"
subprocess.run([sys.executable, "-c", maker], check=True)
reaper, early, deadline = OrphanReaper(), 0, time.monotonic() + 20
until = time.monotonic() + 0.7
while time.monotonic() < until:
    early += reaper.sweep()
    time.sleep(0.05)
late = 0
while not late and time.monotonic() < deadline:
    late += reaper.sweep()
    time.sleep(0.05)
print(json.dumps([early, late]))
"""
)


_AS_PID_1 = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def _may_be_pid_1() -> bool:
    try:
        return subprocess.run([*_AS_PID_1, "true"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


PREFIXES = [
    pytest.param([], id="subreaper"),
    pytest.param(
        _AS_PID_1, id="PID 1", marks=pytest.mark.skipif(not _may_be_pid_1(), reason="no right to make a PID namespace")
    ),
]


def run(code: str, prefix: Sequence[str] = ()) -> object:
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(150)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_thousand_orphans_are_reaped_and_no_own_child_is(prefix: list[str]) -> None:
    said = run(_STRESS, prefix)
    assert isinstance(said, dict)
    assert said.pop("right") > 20
    assert said == {"reaped": 1000, "wrong": [], "late": 77, "forked": 78, "makers": [0, 0, 0, 0]}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_an_orphan_is_reaped_when_it_ends(prefix: list[str]) -> None:
    assert run(_ADOPTED, prefix) == [0, 1]


def test_an_ordinary_process_is_no_reaper() -> None:
    code = "import json; from pgbackup.supervisor.orphans import is_reaper; print(json.dumps(is_reaper()))"
    assert run(code) is False
