"""``pgbackup demo`` does what it says, quickly, and leaves nothing behind, also when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pgbackup.postgres.binaries import Installation

DEMO = [sys.executable, "-m", "pgbackup", "demo"]
LIMIT_SECONDS = 60
ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.timeout(150), pytest.mark.postgres]


@pytest.fixture
def place(tmp_path: Path, installations: dict[int, Installation]) -> Path:
    """Where the demo makes its directories: near the root, for the sockets' sake, and empty."""
    if not installations:
        pytest.skip("PostgreSQL is not on this machine")
    directory = Path("/tmp") / f"demo-{os.getpid()}-{tmp_path.name[-8:]}"
    directory.mkdir(mode=0o755)
    return directory


def start_demo(place: Path, *arguments: str) -> subprocess.Popen[str]:
    # The operator's settings must not matter.
    strange = {"PGHOST": "203.0.113.1", "PGBACKUP_REPOSITORY": "s3://production", "PGBACKUP_NO_SUCH_SETTING": "1"}
    environ = {**os.environ, **strange, "TMPDIR": str(place), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*DEMO, *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def running_below(place: Path) -> list[str]:
    """Processes whose command line or environment names the demo's directories, a moment after the demo has ended."""
    deadline = time.monotonic() + 5
    while (found := _processes_naming(str(place))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _processes_naming(text: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in command + environment:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.parametrize("arguments", [(), ("--s3",)], ids=["file", "s3"])
def test_whole_story(place: Path, arguments: tuple[str, ...]) -> None:
    begin = time.monotonic()
    stdout, stderr = start_demo(place, *arguments).communicate(timeout=140)
    seconds = time.monotonic() - begin
    assert "The demo succeeded" in stdout, stdout + stderr
    assert "equal, row by row" in stdout
    assert seconds < LIMIT_SECONDS, stdout
    assert running_below(place) == []
    place.rmdir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_leaves_nothing(place: Path, number: signal.Signals) -> None:
    demo = start_demo(place)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "pgbackup run" in line:
            break
    demo.send_signal(number)
    _, stderr = demo.communicate(timeout=60)
    assert demo.returncode == 130, stderr
    assert "everything is stopped and removed" in stderr
    assert running_below(place) == []
    place.rmdir()
