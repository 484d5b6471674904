"""Severities have an order and a word; the worst of nothing is nothing."""

from __future__ import annotations

from pgbackup.core.findings import Finding, Severity, worst


def finding(severity: Severity) -> Finding:
    return Finding("some:thing", severity, "something is wrong", "Mend it.")


def test_the_worst_of_nothing_is_nothing() -> None:
    assert worst([]) is None


def test_critical_is_worse_than_a_warning() -> None:
    assert worst([finding(Severity.CRITICAL), finding(Severity.WARNING)]) is Severity.CRITICAL


def test_severities_have_words() -> None:
    assert [severity.word for severity in Severity] == ["warning", "critical"]
