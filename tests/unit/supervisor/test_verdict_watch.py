"""No verdict for too long is told; one in time, or again, is not."""

from __future__ import annotations

from pgbackup.supervisor.verdict_watch import VerdictWatch


def test_silence_is_told_until_there_is_a_verdict() -> None:
    now = 100.0
    watch = VerdictWatch(60, clock=lambda: now)
    assert watch.finding() is None
    now += 180
    assert watch.finding() is None
    now += 1
    finding = watch.finding()
    assert finding is not None
    assert (finding.key, finding.severity.word, finding.facts["silent_seconds"]) == ("health:stale", "critical", 181)
    watch.note()
    assert watch.finding() is None


def test_a_short_interval_leaves_a_look_its_time() -> None:
    now = 0.0
    watch = VerdictWatch(5, clock=lambda: now)
    now = 60
    assert watch.finding() is None
    now = 61
    assert watch.finding() is not None
