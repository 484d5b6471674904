"""A job that fails again and again is told, but for what a store explains that is away, which is told itself."""

from __future__ import annotations

from pgbackup.core.health_facts import JobView
from pgbackup.supervisor.failing_job import FailingJob


class Looks:
    """Looks at the bucket, and how often the job has failed in a row at each."""

    def __init__(self) -> None:
        self._view = JobView()
        self._failing = FailingJob("expire:failing", "expiry", lambda: self._view)

    def told(self, failures: int, *, answers: bool = True) -> list[str]:
        self._view = JobView(failures=failures, error="the test's" if failures else "")
        return [finding.summary for finding in self._failing.findings(store_answers=answers)]


def test_work_that_fails_again_and_again_is_told() -> None:
    looks = Looks()
    for count in (1, 2):
        assert looks.told(count) == []
    assert looks.told(3) == ["the expiry failed 3 times in a row: the test's"]
    assert looks.told(0) == []
    assert looks.told(2) == [], "it counts anew"


def test_what_fails_because_the_store_is_away_is_not_told_beside_it() -> None:
    looks = Looks()
    assert looks.told(2) == []
    for count in (4, 5, 6):
        assert looks.told(count, answers=False) == []
    assert looks.told(7) == [], "it may have failed right before the store was back"
    assert looks.told(7) == []
    assert looks.told(0) == []


def test_what_still_fails_once_the_store_is_back_is_told_at_the_next_failure() -> None:
    looks = Looks()
    assert looks.told(5, answers=False) == []
    assert looks.told(5) == []
    assert looks.told(6) == ["the expiry failed 6 times in a row: the test's"]


def test_what_was_told_before_the_store_went_away_is_not_taken_back() -> None:
    looks = Looks()
    assert looks.told(3)
    assert looks.told(4, answers=False) == ["the expiry failed 4 times in a row: the test's"]
    assert looks.told(4)
    assert looks.told(0) == []


def test_what_works_again_while_the_store_is_away_starts_anew() -> None:
    """It may answer between two looks."""
    looks = Looks()
    assert looks.told(4, answers=False) == []
    assert looks.told(1, answers=False) == []
    assert looks.told(1) == []
    assert looks.told(3) != []
