"""``pgbackup wal-fetch``: what restore_command calls, once per WAL file that has not been fetched ahead.

The path that only moves a prefetched file neither reads settings nor imports boto3.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgbackup.cli.output import say
from pgbackup.cli.their_options import options_of_every_command

if TYPE_CHECKING:
    from pgbackup.app import App
    from pgbackup.engines.restore.wal import FetchPlan
    from pgbackup.engines.wal.read import WalReader

_OWN_FOLDER = ".pgbackup-prefetch"


@click.command("wal-fetch")
@click.argument("segment")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--tail", is_flag=True, help="Recovery after `pgbackup restore --wal on-demand`: its plan counts.")
@click.option("--no-prefetch", is_flag=True, help="Do not fetch the segments that come next ahead of time.")
@click.option("-p", "--prefetch", type=click.IntRange(0), hidden=True)
@click.option("--fetch-ahead", "segment_bytes", type=int, hidden=True)
@options_of_every_command
@click.pass_obj
def command(
    app: App,
    segment: str,
    path: Path,
    *,
    tail: bool,
    no_prefetch: bool,
    prefetch: int | None,
    segment_bytes: int | None,
) -> None:
    """Fetch WAL file SEGMENT from the repository to PATH, which must not exist.

    For restore_command = 'pgbackup wal-fetch %f %p'. Exit status 74: the repository does not have it. Every other
    failure is above 125, so that Postgres stops instead of ending recovery early.
    """
    if segment_bytes is not None:
        _prefetch_and_exit(app, segment, segment_bytes, _folder(path, tail=tail), tail=tail)
    from pgbackup.engines.restore.wal_fetch import check_arguments
    from pgbackup.engines.restore.wal_prefetch import note_position, take

    check_arguments(segment, path)
    folder = _folder(path, tail=tail)
    if folder.is_dir():
        note_position(folder, segment)
        if take(folder, segment, path):
            return
    _fetch(app, segment, path, tail=tail)
    # WAL-E's --prefetch 0 means none; how many otherwise is ours to say.
    if not no_prefetch and prefetch != 0:
        _start_prefetch(segment, path, folder, tail=tail)


def _fetch(app: App, name: str, path: Path, *, tail: bool) -> None:
    from pgbackup.engines.restore.wal_fetch import fetch

    reader, plan = _reader(app, tail=tail)
    fetch(reader, name, path, plan)


def _reader(app: App, *, tail: bool) -> tuple[WalReader, FetchPlan | None]:
    from pgbackup.engines.restore.wal import FOLDER, PLAN_NAME, FetchPlan

    plan = FetchPlan.read(Path(FOLDER) / PLAN_NAME) if tail else None
    # WAL-E's documents do not say whose a backup is: 0.
    system_identifier = (plan.system_identifier or None) if plan is not None else None
    return app.wal_reader(system_identifier), plan


def _folder(path: Path, *, tail: bool) -> Path:
    """Where segments are fetched ahead: in the restore's own folder, else beside the destination."""
    from pgbackup.engines.restore.commands import AHEAD
    from pgbackup.engines.restore.wal import FOLDER

    return Path(FOLDER) / AHEAD if tail else path.parent / _OWN_FOLDER


def _start_prefetch(name: str, path: Path, folder: Path, *, tail: bool) -> None:
    """Start the process that fetches ahead, detached, unless there is one."""
    from pgbackup.core.lsn import is_segment_name
    from pgbackup.engines.restore.wal_prefetch import only_one

    if not is_segment_name(name):
        return
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        with only_one(folder) as alone:
            if not alone:
                return
        kept = [argument for argument in sys.argv[1:] if argument not in (name, str(path), "--tail")]
        options = ["--fetch-ahead", str(path.stat().st_size), *(["--tail"] if tail else [])]
        subprocess.Popen(
            [sys.executable, "-P", "-m", "pgbackup", *kept, *options, name, str(path)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    except OSError as exc:
        say(f"pgbackup: nothing is fetched ahead: {exc}", err=True)


def _prefetch_and_exit(app: App, name: str, segment_bytes: int, folder: Path, *, tail: bool) -> None:
    """Fetch ahead until there is nothing to do. Always ends with 0: see the prefetcher's docstring."""
    import signal

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: os._exit(0))
    try:
        _prefetch(app, name, segment_bytes, folder, tail=tail)
    finally:
        os._exit(0)


def _prefetch(app: App, name: str, segment_bytes: int, folder: Path, *, tail: bool) -> None:
    from pgbackup.core.lsn import SegmentName
    from pgbackup.engines.restore.wal_prefetch import Prefetcher, only_one

    with only_one(folder) as alone:
        if not alone:
            return
        reader, plan = _reader(app, tail=tail)
        segment = SegmentName.parse(name, segment_bytes)
        following = plan.history.segment_for(segment.number + 1, segment_bytes) if plan else segment.next()
        Prefetcher(reader, folder, following, plan).run()
