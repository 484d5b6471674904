"""People are told once when something begins, once when it is over, seldom between, and never in a storm."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.alert_book import AlertBook, Notice, NoticeKind
from pgbackup.core.findings import Finding, Severity
from tests.made_catalog import minutes

REPEAT, SETTLE = timedelta(hours=6), timedelta(minutes=2)


def finding(key: str = "slot:lost", severity: Severity = Severity.WARNING) -> Finding:
    return Finding(key, severity, "something is wrong", "Mend it.", {"bytes": 5})


def book() -> AlertBook:
    return AlertBook(repeat=REPEAT, settle=SETTLE)


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


@pytest.mark.parametrize(
    "document",
    [
        None, [], {}, {"format": 2, "open": []}, {"format": 1}, {"format": 1, "open": [5]},
        {"format": 1, "open": [{"key": "k", "severity": "bad"}]}, {"format": 1, "open": {"a": 1}},
    ],
)  # fmt: skip
def test_a_strange_document_is_refused(document: object) -> None:
    alerts = book()
    with pytest.raises(ValueError, match=r"alerts|BAD"):
        alerts.restore(document)
    assert alerts.active() == []


ROUNDS = st.lists(
    st.tuples(st.integers(1, 200), st.sets(st.sampled_from("ab")), st.sampled_from(list(Severity))), max_size=80
)


@given(ROUNDS)
def test_every_opening_has_one_end_and_repeats_keep_their_distance(rounds) -> None:
    alerts, minute = book(), 0
    last: dict[str, Notice] = {}
    for step, keys, severity in rounds:
        minute += step
        for notice in alerts.update([finding(key, severity) for key in keys], minutes(minute)):
            before = last.get(notice.finding.key)
            match notice.kind:
                case NoticeKind.OPENED:
                    assert (
                        before is None or before.kind is NoticeKind.RESOLVED or notice.time - before.time >= REPEAT / 6
                    )
                case NoticeKind.RESOLVED:
                    assert before is not None
                    assert before.kind is not NoticeKind.RESOLVED
                case NoticeKind.REPEATED:
                    assert before is not None
                    assert notice.time - before.time >= REPEAT
            last[notice.finding.key] = notice
