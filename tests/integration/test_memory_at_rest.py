"""A process that has worked with many threads is small again when it rests."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_WORK = """
import os, sys, threading
from pgbackup.supervisor.memory import bound_heaps, release_free_memory

def resident_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

def try_a_backup():
    from pgbackup.app import App
    from pgbackup.config.settings import load_settings
    from pgbackup.errors import PgbackupError

    given = {"PGBACKUP_REPOSITORY": "file:///nowhere", "PGBACKUP_DSN": "host=/nowhere"}
    try:
        App(lambda: load_settings(environ=given)).take_backup(label="", permanent=False, progress=None)
    except PgbackupError:
        return True

known = {"bounded": bound_heaps, "backup": try_a_backup, "usual": lambda: True}[sys.argv[1]]()
before = resident_kib()
at_once = threading.Barrier(12)

def work():
    # As uploads do: blocks of all sizes, and something small that stays between them.
    at_once.wait()
    for _ in range(20):
        blocks = [bytearray(os.urandom(1) * size) for size in (3 << 20, 1 << 20, 300_000, 5_000) * 2]
        kept.append(blocks[-1])
    at_once.wait()

kept = []
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
release_free_memory()
with open("/proc/self/maps") as maps:
    heaps = sum(1 for line in maps if int(line.split("-")[0], 16) % (64 << 20) == 0)
print(known, heaps, resident_kib() - before)
"""


def run(how: str) -> tuple[bool, int, int]:
    done = subprocess.run([sys.executable, "-c", _WORK, how], capture_output=True, text=True, check=True, timeout=60)
    known, heaps, more_kib = done.stdout.split()
    return known == "True", int(heaps), int(more_kib)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="these limits are glibc's")
@pytest.mark.parametrize("how", ["bounded", "backup"])
def test_few_heaps_and_little_left(how: str) -> None:
    """Also in `pgbackup backup`, which may share a memory limit with `run`."""
    _, usual_heaps, _ = run("usual")
    known, heaps, more_kib = run(how)
    assert known
    assert heaps <= 4 < usual_heaps, "one of them may take more than one block of addresses (64 MiB)"
    assert more_kib < 16 << 10
