"""What is wrong or missing, as a value: found by health checks and by everything that notices something itself.

A finding has a stable key, so that the same trouble seen again is the same alert; the key names the kind of trouble
and, where there can be several, its object (``gap:1/5000000``), never a time or a number that moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

FactValue = str | int | float | bool | None


class Severity(IntEnum):
    """How bad it is. WARNING: look at it this week. CRITICAL: data is, or soon will be, not recoverable, or unknown."""

    WARNING = 1
    CRITICAL = 2

    @property
    def word(self) -> str:
        """``warning`` or ``critical``, as alerts, metrics and JSON write it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: ``summary`` is one line for people, ``hint`` a sentence that says what to do next.

    ``facts`` are the numbers behind it, their units in the names (``age_seconds``, ``retained_bytes``, ``lsn``).
    """

    key: str
    severity: Severity
    summary: str
    hint: str
    facts: Mapping[str, FactValue] = field(default_factory=dict)


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The highest severity, or None when nothing is wrong."""
    return max((finding.severity for finding in findings), default=None)
