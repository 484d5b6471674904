"""People are told once when something begins, once when it is over, seldom between, and never in a storm."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgbackup.core.alert_book import AlertBook, Notice, NoticeKind
from pgbackup.core.findings import FactValue, Finding, Severity
from tests.made_catalog import minutes

REPEAT, SETTLE = timedelta(hours=6), timedelta(minutes=2)


def finding(key: str = "slot:lost", severity: Severity = Severity.WARNING) -> Finding:
    return Finding(key, severity, "something is wrong", "Mend it.", {"bytes": 5})


def book() -> AlertBook:
    return AlertBook(repeat=REPEAT, settle=SETTLE)


OPEN = {
    "key": "k", "severity": "warning", "summary": "s", "hint": "h", "since": "2026-01-31T12:00:00+00:00",
    "told": "2026-01-31T12:00:00+00:00", "told_severity": "warning", "count": 1, "openings": [],
    "facts": {"bytes": 5, "lsn": None},
}  # fmt: skip


def kinds(notices: list[Notice]) -> list[str]:
    return [str(notice.kind) for notice in notices]


def test_it_is_told_when_it_opens_and_then_left_in_peace() -> None:
    alerts = book()
    assert kinds(alerts.update([finding()], minutes(0))) == ["opened"]
    assert [n for m in range(1, 359) for n in alerts.update([finding()], minutes(m))] == []
    (repeated,) = alerts.update([finding()], minutes(360))
    assert (repeated.kind, repeated.count, repeated.since) == (NoticeKind.REPEATED, 2, minutes(0))


def test_it_is_told_when_it_grows_worse_and_not_when_it_grows_better() -> None:
    alerts = book()
    alerts.update([finding()], minutes(0))
    assert kinds(alerts.update([finding(severity=Severity.CRITICAL)], minutes(1))) == ["worsened"]
    assert alerts.update([finding()], minutes(2)) == []
    assert alerts.update([finding(severity=Severity.CRITICAL)], minutes(3)) == []


def test_it_is_over_only_when_it_stays_away() -> None:
    alerts = book()
    alerts.update([finding()], minutes(0))
    assert alerts.update([], minutes(1)) == []
    assert alerts.update([finding()], minutes(2)) == []
    assert alerts.update([], minutes(3)) == []
    (resolved,) = alerts.update([], minutes(5))
    assert (resolved.kind, resolved.finding.key, resolved.since) == (NoticeKind.RESOLVED, "slot:lost", minutes(0))
    assert alerts.active() == []


def test_flapping_is_damped() -> None:
    alerts, told = book(), 0
    for minute in range(0, 300):
        present = minute % 4 == 0
        told += len(alerts.update([finding()] if present else [], minutes(minute)))
    assert told <= 10


def test_the_worst_is_shown_first() -> None:
    alerts = book()
    alerts.update([finding("a"), finding("b", Severity.CRITICAL)], minutes(0))
    assert [alert.finding.key for alert in alerts.active()] == ["b", "a"]


def test_a_restart_does_not_tell_everything_again() -> None:
    before, after = book(), book()
    before.update([finding("a"), finding("b", Severity.CRITICAL)], minutes(0))
    after.restore(json.loads(json.dumps(before.document())))
    assert after.update([finding("b", Severity.CRITICAL)], minutes(1)) == []
    (resolved,) = after.update([finding("b", Severity.CRITICAL)], minutes(4))
    assert (resolved.kind, resolved.finding.key) == (NoticeKind.RESOLVED, "a")


def test_alerts_of_before_the_repository_could_be_read_stay_open() -> None:
    before, after = book(), book()
    before.update([finding("a")], minutes(0))
    after.update([finding("b")], minutes(1))
    after.restore(before.document())
    assert {alert.finding.key for alert in after.active()} == {"a", "b"}


@pytest.mark.parametrize(
    "document",
    [
        None, [], {}, {"format": 2, "open": []}, {"format": 1}, {"format": 1, "open": [5]},
        {"format": 1, "open": [{"key": "k", "severity": "bad"}]}, {"format": 1, "open": {"a": 1}},
        *({"format": 1, "open": [{**OPEN, **change}]} for change in (
            {"count": float("inf")}, {"count": True}, {"count": -1}, {"count": "1"}, {"key": "k" * 3000}, {"key": 5},
            {"since": "2026-01-01T00:00:00"}, {"told": "0001-01-01T00:00:00+00:00"},
            {"since": "9999-12-31T23:59:59+00:00"}, {"told": 5}, {"openings": "now"}, {"openings": {"a": 1}},
            {"facts": []}, {"facts": {"a": []}}, {"facts": {"a": "x" * 3000}},
            {"facts": {str(n): n for n in range(200)}},
        )),
    ],
)  # fmt: skip
def test_a_strange_document_is_refused(document: object) -> None:
    alerts = book()
    with pytest.raises(ValueError, match="not a book of alerts"):
        alerts.restore(document)
    assert alerts.active() == []


def test_a_document_without_fault_is_taken_with_its_facts() -> None:
    alerts = book()
    alerts.restore({"format": 1, "open": [OPEN]})
    assert alerts.active()[0].finding.facts == {"bytes": 5, "lsn": None}


def test_a_fact_without_bound_makes_no_document_that_json_refuses() -> None:
    alerts = book()
    alerts.update([Finding("k", Severity.WARNING, "s", "h", {"age_seconds": float("inf")})], minutes(0))
    assert json.loads(json.dumps(alerts.document(), allow_nan=False))["open"][0]["facts"] == {"age_seconds": None}


def test_a_clock_that_was_ahead_silences_nothing() -> None:
    alerts, years = book(), 60 * 24 * 3650
    alerts.update([finding(), finding("b")], minutes(years))
    alerts.update([finding()], minutes(years))
    told = [(m, n) for m in range(0, 800) for n in alerts.update([finding()], minutes(m))]
    assert [(m, str(n.kind), n.finding.key) for m, n in told] == [
        (2, "resolved", "b"), (360, "repeated", "slot:lost"), (720, "repeated", "slot:lost"),
    ]  # fmt: skip
    assert all(n.since <= n.time for _, n in told)


def test_of_two_findings_with_one_key_the_worse_counts() -> None:
    alerts = book()
    both = [finding(severity=Severity.CRITICAL), finding()]
    assert alerts.update(both, minutes(0))[0].finding.severity is Severity.CRITICAL
    assert alerts.update(both[::-1], minutes(1)) == []


ROUNDS = st.lists(
    st.tuples(st.integers(1, 200), st.sets(st.sampled_from("ab")), st.sampled_from(list(Severity))), max_size=80
)


@given(ROUNDS, st.sets(st.integers(0, 80)))
def test_every_opening_has_one_end_and_repeats_keep_their_distance(rounds, restarts) -> None:
    """Also across restarts, at the rounds in ``restarts``."""
    alerts, minute = book(), 0
    last: dict[str, Notice] = {}
    for number, (step, keys, severity) in enumerate(rounds):
        minute += step
        if number in restarts:
            document, alerts = json.loads(json.dumps(alerts.document())), book()
            alerts.restore(document)
        for notice in alerts.update([finding(key, severity) for key in keys], minutes(minute)):
            before = last.get(notice.finding.key)
            assert notice.since <= notice.time
            match notice.kind:
                case NoticeKind.OPENED:
                    assert before is None or before.kind is NoticeKind.RESOLVED
                case NoticeKind.RESOLVED:
                    assert before is not None
                    assert before.kind is not NoticeKind.RESOLVED
                case NoticeKind.REPEATED:
                    assert before is not None
                    assert before.kind is not NoticeKind.RESOLVED
                    assert notice.time - before.time >= REPEAT
                case NoticeKind.WORSENED:
                    assert before is not None
                    assert before.kind is not NoticeKind.RESOLVED
                    assert notice.finding.severity > before.finding.severity
            last[notice.finding.key] = notice
        open_keys = {key for key, notice in last.items() if notice.kind is not NoticeKind.RESOLVED}
        assert {alert.finding.key for alert in alerts.active()} == open_keys


@given(st.lists(st.booleans(), max_size=400), st.integers(1, 20))
def test_a_flapping_finding_is_told_a_few_times_an_hour(present, step) -> None:
    alerts = book()
    told = [
        n.time
        for number, here in enumerate(present)
        for n in alerts.update([finding()] if here else [], minutes(number * step))
    ]
    for first in told:
        assert sum(timedelta(0) <= moment - first < timedelta(hours=1) for moment in told) <= 9


FACT = st.text(max_size=3000) | st.floats() | st.integers()


@given(st.text(max_size=5000), st.text(max_size=5000), st.dictionaries(st.text(max_size=9), FACT, max_size=130))
@example("x" * 5000, "y" * 5000, {str(n): "z" * 3000 for n in range(130)})
def test_whatever_was_told_is_remembered(summary: str, hint: str, facts: dict[str, FactValue]) -> None:
    """A text may quote what a library or a tool says. One that was too long made the whole book unreadable: everything
    was told again after a restart, and `status` did not know of a stream that stands."""
    before, after = book(), book()
    before.update([Finding("stream:stopped", Severity.CRITICAL, summary, hint, facts)], minutes(0))
    after.restore(json.loads(json.dumps(before.document())))
    assert [alert.finding.key for alert in after.active()] == ["stream:stopped"]
