"""A tool that behaves as a test says: it speaks WAL-G's command line and keeps files below $WALG_FILE_PREFIX.

What it does to a WAL file is in the file $PRETEND_MODE: ``good``, ``lie`` (exit 0 and nothing stored), ``empty`` (an
empty object), ``fail``, ``hang``, ``flood``, ``fork`` (stores, and leaves a child), ``torn`` (half an object, then it
is killed). What is cut short is refused when it is fetched, except by ``blind``. A base backup hangs silently
(``hang``), finds once $PRETEND_MODE.go is there that another one is under way (``busy``), fails after some seconds in
which it prints (``mutter``) or stores (``trickle``) a little, says that all is done and has stored nothing (``lie``), a
seal without data (``hollow``), or a backup of another cluster (``foreign``). Every call is noted in
$PRETEND_MODE.calls. Never imported; tests run it as a program.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path


def main(words: list[str]) -> int:
    mode = Path(os.environ["PRETEND_MODE"])
    with mode.with_suffix(".calls").open("a") as calls:
        rate = os.environ.get("WALG_DISK_RATE_LIMIT")
        calls.write(" ".join([*words, *([f"at {rate} bytes/s"] if rate else [])]) + "\n")
    if words in (["--version"], ["version"]):
        print("pretend 1.0")
        return 0
    prefix = os.environ.get("WALG_FILE_PREFIX") or os.environ["WALE_FILE_PREFIX"].removeprefix("file://localhost")
    wal = Path(prefix, "wal_005")
    wal.mkdir(parents=True, exist_ok=True)
    if words[0] == "wal-push":
        return push(Path(words[1]), wal, mode.read_text().strip())
    if words[0] == "backup-push":
        return backup(wal.parent / "basebackups_005", mode.read_text().strip())
    if words[0] == "backup-fetch":
        time.sleep(600)
    if words[0] == "wal-fetch":
        return fetch(wal / words[1], Path(words[2]), mode.read_text().strip())
    print(f"pretend: unknown command {words[0]}", file=sys.stderr)
    return 1


def push(path: Path, wal: Path, mode: str) -> int:
    target = wal / path.name
    if mode == "fail":
        print("pretend: the store said 503 Slow Down", file=sys.stderr)
        return 1
    if mode == "hang":
        time.sleep(600)
    if mode == "flood":
        for _ in range(50):
            os.write(2, b"\xff" * 100_000)
    if mode == "torn":
        data = path.read_bytes()
        target.write_bytes(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "fork" and os.fork() == 0:
        time.sleep(600)
        os._exit(0)
    if mode == "empty":
        target.touch()
    elif mode != "lie":
        if list(path.parent.joinpath("archive_status").iterdir()) or len(list(path.parent.iterdir())) != 2:
            print("pretend: found more than the one file", file=sys.stderr)
            return 1
        temporary = wal.parent / f"{path.name}.tmp"
        shutil.copyfile(path, temporary)
        temporary.rename(target)
    return 0


def backup(folder: Path, mode: str) -> int:
    tars = folder / "base_000000010000000000000009" / "tar_partitions"
    tars.mkdir(parents=True, exist_ok=True)
    if mode == "hang":
        time.sleep(600)
    if mode == "busy":
        while not Path(os.environ["PRETEND_MODE"]).with_suffix(".go").exists():
            print("still at it", flush=True)
            time.sleep(0.1)
        print("ERROR:  a backup is already in progress", file=sys.stderr)
        return 1
    if mode in ("lie", "hollow", "foreign"):
        if mode == "foreign":
            (tars / "part_001.tar.lz4").write_bytes(b"x")
        if mode != "lie":
            seal = {"LSN": 0x9000028, "FinishLSN": 0x9000100, "PgVersion": 180000, "SystemIdentifier": 4711}
            sentinel = folder / "base_000000010000000000000009_backup_stop_sentinel.json"
            sentinel.write_text(json.dumps(seal))
        return 0
    for _ in range(15):
        time.sleep(0.2)
        if mode == "mutter":
            print("still at it", flush=True)
        elif mode == "trickle":
            with (tars / "part_001.tar.lz4").open("ab") as part:
                part.write(b"x" * 1000)
    print("pretend: the disk cannot be read", file=sys.stderr)
    return 1


def fetch(source: Path, target: Path, mode: str) -> int:
    if not source.exists():
        return 74
    if mode != "blind" and source.stat().st_size % (1 << 20) and source.suffix != ".history":
        print("pretend: the object is cut short", file=sys.stderr)
        return 1
    shutil.copyfile(source, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
