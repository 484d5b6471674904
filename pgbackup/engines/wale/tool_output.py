"""What a tool prints, read as it comes and bounded: the beginning of its stdout, the end of its stderr.

The tool never waits for us: whatever is too much is read and forgotten. Bytes that are not UTF-8 become replacement
characters. Memory: STDOUT_BYTES and TAIL_BYTES.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
from types import TracebackType
from typing import Self

STDOUT_BYTES = 1 << 20
TAIL_BYTES = 16 << 10
_READ_BYTES = 64 << 10
_EOF_SECONDS = 2.0


class ToolOutput:
    """Two pipes and the thread that reads them. Give the tool ``stdout`` and ``stderr``, then ``started``, ``finish``.

    ``active`` grows with every byte, so that a tool that prints can be told from one that does nothing.
    """

    def __init__(self) -> None:
        self._ends: dict[int, bool] = {}
        read_out, self.stdout = os.pipe()
        read_err, self.stderr = os.pipe()
        self._ends = {read_out: True, read_err: False}
        self._wake_read, self._wake_write = os.pipe()
        self.head = bytearray()
        self.tail = bytearray()
        self.active = 0
        self._thread = threading.Thread(target=self._read_all, name="tool-output", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(wait_seconds=0)

    def started(self) -> None:
        """The tool has its ends: give up ours, so that the end of its output can be seen, and read."""
        self._close_writers()
        self._thread.start()

    def finish(self, *, wait_seconds: float = _EOF_SECONDS) -> None:
        """The tool has ended: read what is left, for so long; whoever still holds a pipe then writes to nobody."""
        if self._thread.ident is None:
            self._close_writers()
            self._close_readers()
        else:
            self._thread.join(wait_seconds)
            if self._thread.is_alive():
                os.write(self._wake_write, b"x")
                self._thread.join()
        for end in (self._wake_read, self._wake_write):
            if end >= 0:
                os.close(end)
        self._wake_read = self._wake_write = -1

    def text(self) -> str:
        """The end of stderr."""
        return self.tail.decode("utf-8", "replace").strip()

    def _read_all(self) -> None:
        with selectors.DefaultSelector() as selector:
            for end in (*self._ends, self._wake_read):
                selector.register(end, selectors.EVENT_READ)
            while len(selector.get_map()) > 1:
                for key, _ in selector.select():
                    if key.fd == self._wake_read:
                        self._close_readers()
                        return
                    if not self._take(key.fd):
                        selector.unregister(key.fd)
        self._close_readers()

    def _take(self, end: int) -> bool:
        block = os.read(end, _READ_BYTES)
        self.active += len(block)
        if self._ends[end]:
            self.head += block[: STDOUT_BYTES - len(self.head)]
        else:
            self.tail += block
            del self.tail[:-TAIL_BYTES]
        return bool(block)

    def _close_writers(self) -> None:
        for end in (self.stdout, self.stderr):
            if end >= 0:
                os.close(end)
        self.stdout = self.stderr = -1

    def _close_readers(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                os.close(end)
        self._ends.clear()
