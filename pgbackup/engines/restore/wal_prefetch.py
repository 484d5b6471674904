"""Fetch the segments that recovery will ask for next, ahead of it, in a process of its own.

Starting Python with a connection to the store for every segment costs more than fetching it. So the first call of
``wal-fetch`` starts this process, which keeps a folder filled; ``mv`` in restore_command, or a ``wal-fetch`` that does
not even connect, takes a segment from it. A file that is gone was taken, and the next one is fetched. The process ends
at the end of the archive, when nothing was taken for IDLE_SECONDS, or when the folder is gone.

It is a child of whatever Postgres runs under, often process 1 of a container, which is then the postmaster: it takes
any exit other than 0 and 1 of an unknown child for a crash. The caller must exit with 0 or 1, whatever happens.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from pgbackup.core.lsn import SegmentName, is_segment_name
from pgbackup.engines.restore.wal import FetchPlan
from pgbackup.engines.restore.wal_fetch import write_new
from pgbackup.engines.wal.read import WalReader

AHEAD_BYTES = 128 << 20
MAX_AHEAD = 16
IDLE_SECONDS = 60.0
_THREADS = 3
_TICK_SECONDS = 0.05
_LOCK = "prefetch.lock"
_POSITION = "prefetch.position"


def take(folder: Path, name: str, destination: Path, segment_bytes: int | None = None) -> bool:
    """Move a prefetched file to where Postgres wants it. False when there is none."""
    source = folder / name
    try:
        if segment_bytes is not None and source.stat().st_size != segment_bytes:
            return False
        source.rename(destination)
    except OSError:
        return False
    return True


def note_position(folder: Path, name: str) -> None:
    """Tell the prefetching process what Postgres asks for now: what comes before it is not needed any more."""
    temporary = folder / f"{_POSITION}.{os.getpid()}"
    with suppress(OSError):
        temporary.write_text(name)
        temporary.replace(folder / _POSITION)


@contextmanager
def only_one(folder: Path) -> Iterator[bool]:
    """Whether we are the one process that prefetches into a folder, while this is open."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


class Prefetcher:
    """Keeps ``folder`` filled with the segments after ``first``. Without a plan it stays on that timeline."""

    def __init__(
        self,
        reader: WalReader,
        folder: Path,
        first: SegmentName,
        plan: FetchPlan | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._reader = reader
        self._folder = folder
        self._plan = plan
        self._next = first
        self._room = max(1, min(MAX_AHEAD, AHEAD_BYTES // first.segment_bytes))
        self._under_way: dict[SegmentName, Future[None]] = {}
        self._ready: set[SegmentName] = set()
        self._ended = False
        self._clock = clock
        self._sleep = sleep

    def run(self) -> None:
        """Fetch until there is nothing more to do. What was not taken is removed at the end."""
        last_taken = self._clock()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="prefetch") as pool:
            while self._folder.is_dir() and self._clock() - last_taken < IDLE_SECONDS:
                if self._look():
                    last_taken = self._clock()
                if self._ended and not self._ready and not self._under_way:
                    break
                self._fill(pool)
                self._sleep(_TICK_SECONDS)
        for segment in (*self._ready, *self._under_way):
            (self._folder / str(segment)).unlink(missing_ok=True)

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        while not self._ended and len(self._ready) + len(self._under_way) < self._room:
            if not self._is_planned(self._next):
                self._ended = True
                return
            self._under_way[self._next] = pool.submit(self._fetch, self._next)
            self._next = self._after(self._next)

    def _look(self) -> bool:
        """See what has arrived and what was taken; returns whether anything was."""
        for segment, future in list(self._under_way.items()):
            if future.done():
                del self._under_way[segment]
                if future.exception() is None:
                    self._ready.add(segment)
                else:
                    self._ended = True
        taken = {segment for segment in self._ready if not (self._folder / str(segment)).exists()}
        for segment in self._overtaken():
            (self._folder / str(segment)).unlink(missing_ok=True)
            taken.add(segment)
        self._ready -= taken
        return bool(taken)

    def _overtaken(self) -> list[SegmentName]:
        """Segments that Postgres asked for, and got otherwise, before they were here."""
        try:
            name = (self._folder / _POSITION).read_text()
        except OSError:
            return []
        if not is_segment_name(name):
            return []
        position = SegmentName.parse(name, self._next.segment_bytes)
        return [segment for segment in self._ready if segment.number <= position.number]

    def _fetch(self, segment: SegmentName) -> None:
        write_new(self._folder / str(segment), self._reader.segment(segment))

    def _is_planned(self, segment: SegmentName) -> bool:
        """Whether a segment may be given out as it is: on the path, whole, and not behind the planned end."""
        if self._plan is None:
            return True
        file = self._plan.file_for(segment)
        return file is not None and file.source == "segment" and self._plan.must_have(segment)

    def _after(self, segment: SegmentName) -> SegmentName:
        if self._plan is None:
            return segment.next()
        return self._plan.history.segment_for(segment.number + 1, segment.segment_bytes)
