"""A job that fails again and again, where nothing else would tell of it; but not what a store explains that is away,
for that is told itself.

What failed between a look at the bucket without an answer and the next one with one may have failed for that; so only a
failure after that is told. One that was told before the store went away still fails, for all that anybody knows.
"""

from __future__ import annotations

from collections.abc import Callable

from pgbackup.core.findings import Finding, Severity
from pgbackup.core.health_facts import JobView
from pgbackup.count_text import counted

_FAILURES_TO_TELL = 3


class FailingJob:
    """``findings`` is asked after each look at the bucket. For one thread."""

    def __init__(self, key: str, job: str, view: Callable[[], JobView]) -> None:
        self._key = key
        self._job = job
        self._view = view
        self._answered = True
        self._last = self._excused = 0
        self._told = False

    def findings(self, *, store_answers: bool) -> list[Finding]:
        """That it fails, unless the store explains it: ``store_answers`` is what the look has shown."""
        view = self._view()
        if view.failures < self._last:
            self._excused, self._told = 0, False
        if not (store_answers and self._answered):
            self._excused = view.failures
        self._last, self._answered = view.failures, store_answers
        self._told = view.failures >= _FAILURES_TO_TELL and (self._told or view.failures > self._excused)
        if not self._told:
            return []
        return [
            Finding(
                self._key,
                Severity.WARNING,
                f"the {self._job} failed {counted(view.failures, 'time')} in a row: {view.error}",
                "It is tried again by itself; mend what the message names.",
                {"failures": view.failures},
            )
        ]
