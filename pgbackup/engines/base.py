"""What long work is given: a sink for its progress, and the word to stop."""

from __future__ import annotations

from typing import Protocol

from pgbackup.core.stop import StopSignal

__all__ = ["ProgressSink", "SilentProgress", "StopSignal"]


class ProgressSink(Protocol):
    """Receives the progress of one long piece of work; calls come from any thread."""

    def start(self, what: str, total_bytes: int | None) -> None:
        """Work begins; ``total_bytes`` is an estimate, or None when nobody knows."""

    def advance(self, done_bytes: int) -> None:
        """``done_bytes`` more are done."""

    def finish(self) -> None:
        """Work ended, well or not."""


class SilentProgress:
    """A sink for callers that show nothing."""

    def start(self, what: str, total_bytes: int | None) -> None: ...

    def advance(self, done_bytes: int) -> None: ...

    def finish(self) -> None: ...
