"""The request to stop, as everything that waits sees it."""

from __future__ import annotations

from typing import Protocol


class StopSignal(Protocol):
    """Asks work to end soon; ``threading.Event`` fits."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool: ...
