"""What the workers of the process show, and which of it is a finding: crashing, silent, ended.

A worker is *silent* when it has not looked at its stop signal for longer than it ever should: it hangs, although its
thread is alive. One that crashes is started again; a crash is news for a while, and critical when crash follows crash.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pgbackup.core.findings import Finding, Severity

CRASH_NEWS_SECONDS = 900.0
CRASHES_TO_CRITICAL = 3


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One look at a worker. ``crashes`` since the process began, ``crashes_in_a_row`` without a good run between them;
    ``idle_seconds`` since it last showed that it lives, ``silent_after_seconds`` as much as it may (None: any)."""

    name: str
    alive: bool
    crashes: int = 0
    crashes_in_a_row: int = 0
    seconds_since_crash: float | None = None
    last_error: str = ""
    idle_seconds: float = 0.0
    silent_after_seconds: float | None = None

    @property
    def silent(self) -> bool:
        """Whether it hangs, or has ended though nobody told it to."""
        too_long = self.silent_after_seconds is not None and self.idle_seconds > self.silent_after_seconds
        return too_long or not self.alive


def worker_findings(states: Iterable[WorkerState]) -> list[Finding]:
    """What is wrong with these workers; nothing for those that work."""
    return [finding for state in states for finding in (_crashing(state), _silent(state)) if finding is not None]


def _crashing(state: WorkerState) -> Finding | None:
    since = state.seconds_since_crash
    if since is None or (not state.crashes_in_a_row and since > CRASH_NEWS_SECONDS):
        return None
    return Finding(
        key=f"worker:{state.name}:crashing",
        severity=Severity.CRITICAL if state.crashes_in_a_row >= CRASHES_TO_CRITICAL else Severity.WARNING,
        summary=f"the worker {state.name} crashed and was started again: {state.last_error}",
        hint="Report it with the lines of the log around the crash; nothing that was confirmed is lost.",
        facts={
            "crashes": state.crashes,
            "crashes_in_a_row": state.crashes_in_a_row,
            "seconds_since_crash": round(since, 1),
        },
    )


def _silent(state: WorkerState) -> Finding | None:
    if not state.silent:
        return None
    what = "hangs: it has shown nothing for a while" if state.alive else "has ended, and nothing starts it again"
    return Finding(
        key=f"worker:{state.name}:silent",
        severity=Severity.CRITICAL,
        summary=f"the worker {state.name} {what}",
        hint="Restart pgbackup; it goes on from what the repository holds.",
        facts={"idle_seconds": round(state.idle_seconds, 1), "alive": state.alive},
    )
