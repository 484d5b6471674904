"""Many small pieces of reading on a few threads, with an end that comes soon when one fails or somebody interrupts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from pgbackup.engines.base import ProgressSink, StopSignal
from pgbackup.storage.base import ByteStream

_LOOK_SECONDS = 1.0
_AHEAD = 2
"""Pieces of work that wait for a thread: few, so that a million segments are not a million futures."""


class Interrupted(Exception):
    """The verification ends early; whoever ended it knows why."""


class Workers:
    """Runs work; ``stopping`` is looked at by everything that reads."""

    def __init__(self, count: int, stop: StopSignal | None = None) -> None:
        self._count = count
        self._stop = stop
        self._stopping = threading.Event()

    def run_all(self, work: Iterable[Callable[[], None]]) -> None:
        """Run everything, in any order. Raises what the first failure raised, when the others have noticed."""
        pending: set[Future[None]] = set()
        with ThreadPoolExecutor(self._count, thread_name_prefix="verify") as pool:
            try:
                for task in work:
                    while len(pending) >= self._count + _AHEAD:
                        pending = self._wait_for_some(pending)
                    pending.add(pool.submit(task))
                while pending:
                    pending = self._wait_for_some(pending)
            except BaseException:
                self._stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _wait_for_some(self, pending: set[Future[None]]) -> set[Future[None]]:
        """What is still pending when something ended, or a second has passed. Raises Interrupted on a stop."""
        if self._stop is not None and self._stop.is_set():
            raise Interrupted
        done, left = wait(pending, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
        _raise_first(done)
        return left

    def counted(self, source: ByteStream, on_bytes: Callable[[int], None]) -> ByteStream:
        """The same stream; every read is counted, and raises Interrupted when the work is to end."""
        return _Counted(source, on_bytes, self._stopping)

    def advance_of(self, progress: ProgressSink) -> Callable[[int], None]:
        """``progress.advance`` that raises Interrupted when the work is to end."""

        def advance(done_bytes: int) -> None:
            if self._stopping.is_set():
                raise Interrupted
            progress.advance(done_bytes)

        return advance


class _Counted:
    def __init__(self, source: ByteStream, on_bytes: Callable[[int], None], stopping: threading.Event) -> None:
        self._source = source
        self._on_bytes = on_bytes
        self._stopping = stopping

    def read(self, size: int = -1, /) -> bytes:
        if self._stopping.is_set():
            raise Interrupted
        data = self._source.read(size)
        self._on_bytes(len(data))
        return data


def _raise_first(done: Iterable[Future[None]]) -> None:
    for future in done:
        future.result()
