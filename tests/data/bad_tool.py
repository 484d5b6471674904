"""A badly behaved tool: what it does is its first argument. Never imported; tests run it as a program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time


def hang() -> None:
    print("begun", flush=True)
    time.sleep(600)


def deaf() -> None:
    """Hangs and does not obey SIGTERM, and neither does its child."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)
    print("begun", flush=True)
    time.sleep(600)


def fork() -> None:
    """Ends well, and leaves children that hold its pipes: one in its group, one that became a daemon."""
    for leave in (False, True):
        if os.fork() == 0:
            if leave:
                os.setsid()
                if os.fork():
                    os._exit(0)
            time.sleep(600)
            os._exit(0)
    print("left two behind", file=sys.stderr)


def flood() -> None:
    """Prints 20 MB of one endless line to both outputs."""
    block = b"\xff\xfe" + b"x" * 99_998
    for _ in range(100):
        os.write(1, block)
        os.write(2, block)
    os.write(2, b"\nthe last words\n")
    sys.exit(3)


def rubbish() -> None:
    sys.stderr.buffer.write(b"caf\xe9 \x00\x1b[31m \xf0\x9f broken\n")
    sys.exit(4)


def suicide() -> None:
    print("good bye", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def fails() -> None:
    print("something is wrong", file=sys.stderr)
    sys.exit(1)


def environment() -> None:
    for name, value in sorted(os.environ.items()):
        print(f"{name}={value}")
    print(os.isatty(0), os.isatty(1), os.getpgrp() == os.getpid(), file=sys.stderr)


def closes() -> None:
    """Closes its outputs and goes on for a moment."""
    os.close(1)
    os.close(2)
    time.sleep(0.3)


def slow_child() -> None:
    """A child that must be waited for, as a pipeline's last program is."""
    subprocess.run(["sleep", "0.2"], check=True)
    print("done")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
