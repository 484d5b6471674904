"""From findings to notices: what people are told, when, and when they are left in peace.

A finding that appears is told once, repeated at most every ``repeat``, told again when it grows worse, and told when it
is over. Flapping is damped: a finding is over only after it was absent for ``settle``, and one that opened too often
within an hour is over only when it was absent for an hour.

Pure: the caller brings the time. The book's document survives a restart, so that one is not told everything again. A
time in the future (the clock was wrong) counts as now, so that no alert falls silent for years.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import isfinite
from typing import Any

from pgbackup.core.findings import FactValue, Finding, Severity

_FLAPS = 3
_FLAP_SPAN = timedelta(hours=1)
_MOST_ALERTS = 1000
_TEXT = 2000
_MOST_FACTS = 100
_YEARS = 1970, 9000
"""Times are counted with, and shown in other zones; at the ends of the calendar that raises."""


class NoticeKind(StrEnum):
    """Why people are told."""

    OPENED = "opened"
    WORSENED = "worsened"
    REPEATED = "repeated"
    RESOLVED = "resolved"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell: a finding, seen since ``since`` (aware), told for the ``count``-th time at ``time``."""

    kind: NoticeKind
    finding: Finding
    since: datetime
    time: datetime
    count: int = 1


@dataclass(frozen=True, slots=True)
class Alert:
    """A finding that is open. ``absent_since``: not seen any more, and not yet over; ``openings``: of the last hour."""

    finding: Finding
    since: datetime
    told: datetime
    told_severity: Severity
    count: int = 1
    absent_since: datetime | None = None
    openings: tuple[datetime, ...] = ()


class AlertBook:
    """The open alerts by key; and for a while those that are over, to notice when they come back."""

    def __init__(self, *, repeat: timedelta, settle: timedelta = timedelta(minutes=2)) -> None:
        self._repeat = repeat
        self._settle = settle
        self._open: dict[str, Alert] = {}
        self._closed: dict[str, Alert] = {}

    def active(self) -> list[Alert]:
        """What is open now, worst first."""
        return sorted(self._open.values(), key=lambda a: (-a.finding.severity, a.finding.key))

    def update(self, findings: Iterable[Finding], now: datetime) -> list[Notice]:
        """Take one round of findings; returns what is to be told."""
        seen: dict[str, Finding] = {}
        for finding in findings:
            if finding.key not in seen or finding.severity > seen[finding.key].severity:
                seen[finding.key] = finding
        self._correct_times(now)
        notices = [notice for f in seen.values() if (notice := self._seen(f, now))]
        notices += [notice for key in list(self._open) if key not in seen and (notice := self._absent(key, now))]
        self._forget(now)
        return notices

    def add(self, findings: Iterable[Finding], now: datetime) -> list[Notice]:
        """Take findings that are no whole round: nothing is over because it is not among them."""
        self._correct_times(now)
        return [notice for finding in findings if (notice := self._seen(finding, now))]

    def is_open(self, key: str) -> bool:
        """Whether that is an open alert."""
        return key in self._open

    def _seen(self, finding: Finding, now: datetime) -> Notice | None:
        alert = self._open.get(finding.key)
        if alert is None:
            return self._opened(finding, now)
        openings = alert.openings
        if alert.absent_since is not None and now - alert.absent_since >= self._settle:
            # It would have been over by now, had it not flapped before: it still does.
            openings = (*openings, now)[-_FLAPS * 2 :]
        alert = replace(alert, finding=finding, absent_since=None, openings=openings)
        self._open[finding.key] = alert
        if finding.severity > alert.told_severity:
            return self._tell(NoticeKind.WORSENED, alert, now)
        if now - alert.told >= self._repeat:
            return self._tell(NoticeKind.REPEATED, alert, now)
        return None

    def _opened(self, finding: Finding, now: datetime) -> Notice:
        before = self._closed.pop(finding.key, None)
        recent = tuple(t for t in (before.openings if before else ()) if now - t < _FLAP_SPAN)
        return self._tell(NoticeKind.OPENED, Alert(finding, now, now, finding.severity, 0, None, (*recent, now)), now)

    def _tell(self, kind: NoticeKind, alert: Alert, now: datetime) -> Notice:
        told = replace(alert, told=now, told_severity=alert.finding.severity, count=alert.count + 1)
        self._open[alert.finding.key] = told
        return Notice(kind, told.finding, told.since, now, told.count)

    def _absent(self, key: str, now: datetime) -> Notice | None:
        alert = self._open[key]
        since = alert.absent_since or now
        flaps = sum(now - t < _FLAP_SPAN for t in alert.openings) > _FLAPS
        if now - since < (_FLAP_SPAN if flaps else self._settle):
            self._open[key] = replace(alert, absent_since=since)
            return None
        del self._open[key]
        self._closed[key] = replace(alert, absent_since=since)
        return Notice(NoticeKind.RESOLVED, alert.finding, alert.since, now, alert.count)

    def _correct_times(self, now: datetime) -> None:
        self._open = {key: _until(alert, now) for key, alert in self._open.items()}
        self._closed = {key: _until(alert, now) for key, alert in self._closed.items()}

    def _forget(self, now: datetime) -> None:
        self._closed = {
            key: alert for key, alert in self._closed.items() if now - (alert.absent_since or now) < _FLAP_SPAN
        }

    # -- across restarts ------------------------------------------------------------------------------------------

    def document(self, undelivered: Mapping[str, Notice] | None = None) -> dict[str, Any]:
        """The open alerts as JSON values.

        ``undelivered``: what not everybody has been told yet, by key. Should this process end now, the next tells it:
        an open alert counts as told so long ago that it is repeated at once, one that is over as still open.
        """
        waiting = dict(undelivered or {})
        alerts = [self._untold(alert) if alert.finding.key in waiting else alert for alert in self.active()]
        over = [
            notice for key, notice in waiting.items() if notice.kind is NoticeKind.RESOLVED and key not in self._open
        ]
        alerts += [Alert(n.finding, n.since, n.time, n.finding.severity, n.count, n.time) for n in over]
        return {"format": 1, "open": [_document(alert) for alert in alerts[:_MOST_ALERTS]]}

    def _untold(self, alert: Alert) -> Alert:
        return replace(alert, told=alert.told - self._repeat)

    def restore(self, document: object) -> None:
        """Take over the open alerts of an earlier process, beside those that are open here already.

        Raises ValueError for anything else, and takes nothing.
        """
        try:
            if not isinstance(document, Mapping) or document["format"] != 1:
                raise ValueError("another format")
            read = [_parse(fields) for fields in document["open"][:_MOST_ALERTS]]
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            raise ValueError(f"not a book of alerts ({exc})") from exc
        self._open = {alert.finding.key: alert for alert in read} | self._open


def _until(alert: Alert, now: datetime) -> Alert:
    """The alert without times that have not come yet."""
    times = (alert.since, alert.told, alert.absent_since or now, *alert.openings)
    if all(moment <= now for moment in times):
        return alert
    absent = None if alert.absent_since is None else min(alert.absent_since, now)
    openings = tuple(min(moment, now) for moment in alert.openings)
    return replace(
        alert, since=min(alert.since, now), told=min(alert.told, now), absent_since=absent, openings=openings
    )


def _document(alert: Alert) -> dict[str, Any]:
    finding = alert.finding
    return {
        "key": finding.key,
        "severity": finding.severity.word,
        # Cut, for a text may quote a library's: what is too long to be read again would cost the whole book.
        "summary": finding.summary[:_TEXT],
        "hint": finding.hint[:_TEXT],
        "facts": {name: _plain(value) for name, value in list(finding.facts.items())[:_MOST_FACTS]},
        "since": alert.since.isoformat(),
        "told": alert.told.isoformat(),
        "told_severity": alert.told_severity.word,
        "count": alert.count,
        "absent_since": alert.absent_since.isoformat() if alert.absent_since else None,
        "openings": [t.isoformat() for t in alert.openings],
    }


def _parse(fields: Mapping[str, Any]) -> Alert:
    severity = Severity[str(fields["severity"]).upper()]
    texts = [fields[name] for name in ("key", "summary", "hint")]
    if not all(isinstance(text, str) and len(text) <= _TEXT for text in texts):
        raise ValueError("texts")
    count = fields["count"]
    if type(count) is not int or count < 0:
        raise ValueError("a count")
    finding = Finding(texts[0], severity, texts[1], texts[2], _facts(fields.get("facts", {})))
    return Alert(
        finding,
        since=_moment(fields["since"]),
        told=_moment(fields["told"]),
        told_severity=Severity[str(fields["told_severity"]).upper()],
        count=count,
        absent_since=_moment(fields["absent_since"]) if fields.get("absent_since") is not None else None,
        openings=tuple(_moment(t) for t in fields["openings"][-_FLAPS * 2 :]),
    )


def _facts(given: Any) -> dict[str, FactValue]:
    if not isinstance(given, Mapping) or len(given) > _MOST_FACTS:
        raise ValueError("facts")
    facts: dict[str, FactValue] = {}
    for name, value in given.items():
        text = value if isinstance(value, str) else ""
        if not isinstance(value, str | int | float | None) or len(name) > _TEXT or len(text) > _TEXT:
            raise ValueError("facts")
        facts[str(name)] = value
    return facts


def _plain(value: FactValue) -> FactValue:
    """JSON has no infinity."""
    if isinstance(value, str):
        return value[:_TEXT]
    return None if isinstance(value, float) and not isfinite(value) else value


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    if not _YEARS[0] <= moment.year < _YEARS[1]:
        raise ValueError("a time of another age")
    return moment
