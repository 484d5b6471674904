"""The bodies of webhooks: our own JSON, and what Slack, Discord and Microsoft Teams expect. Pure.

Our own (``generic``), for any receiver; keys are only ever added::

    {"format": 1, "id": "…", "kind": "opened|worsened|repeated|resolved|test", "status": "open|resolved|test",
     "key": "wal:not-durable", "severity": "warning|critical", "summary": "…", "hint": "…", "facts": {…},
     "since": "2026-03-01T02:00:00+00:00", "time": "…", "count": 1,
     "cluster": "…", "host": "…", "repository": "s3://…", "version": "…"}

Slack: https://docs.slack.dev/messaging/formatting-message-text (``& < >`` are escaped). Discord: at most 2000
characters, no mentions. Teams: an adaptive card in a message, as its workflows take it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite
from typing import Any

from pgbackup.alerts.base import Origin
from pgbackup.core.alert_book import Notice, NoticeKind
from pgbackup.core.findings import FactValue, Severity

Shape = Callable[[Notice, Origin, str], dict[str, Any]]
_MOST_TITLE = 600
_MOST_TEXT = 1200
_DISCORD_MOST_TEXT = 2000
_MARKDOWN = re.compile(r"([\\*_~`|<>\[\]()#])")
_BACKSLASHED = r"\\\1"
_SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")
_DISCORD_HOSTS = ("discord.com", "discordapp.com", "ptb.discord.com", "canary.discord.com")
_TEAMS_SUFFIXES = (".webhook.office.com", ".logic.azure.com", ".powerplatform.com", ".powerautomate.com")


def shape_for(host: str, path: str = "") -> Shape:
    """The shape that the receiver at ``host`` expects; at Discord an address may ask for Slack's by its path."""
    host = host.lower()
    if host in _DISCORD_HOSTS and path.rstrip("/").endswith("/slack"):
        return slack
    if host in _SLACK_HOSTS:
        return slack
    if host in _DISCORD_HOSTS:
        return discord
    if host == "outlook.office.com" or host.endswith(_TEAMS_SUFFIXES):
        return teams
    return generic


def generic(notice: Notice, origin: Origin, notice_id: str) -> dict[str, Any]:
    """Our own JSON."""
    finding = notice.finding
    return {
        "format": 1,
        "id": notice_id,
        "kind": str(notice.kind),
        "status": _status(notice),
        "key": finding.key,
        "severity": finding.severity.word,
        "summary": finding.summary,
        "hint": finding.hint,
        "facts": {name: _plain(value) for name, value in finding.facts.items()},
        "since": notice.since.isoformat(),
        "time": notice.time.isoformat(),
        "count": notice.count,
        "cluster": origin.cluster,
        "host": origin.host,
        "repository": origin.repository,
        "version": origin.version,
    }


def slack(notice: Notice, origin: Origin, notice_id: str) -> dict[str, Any]:
    """One text of Slack's markup."""
    title, body = _cut(headline(notice, origin), _body(notice))
    return {"text": f"*{_escaped(title)}*\n{_escaped(body)}"}


def discord(notice: Notice, origin: Origin, notice_id: str) -> dict[str, Any]:
    """Plain content that mentions nobody."""
    title, body = _cut(headline(notice, origin), _body(notice))
    # Names of slots and files are full of signs that would be markup.
    text = f"**{_MARKDOWN.sub(_BACKSLASHED, title)}**\n{_MARKDOWN.sub(_BACKSLASHED, body)}"
    return {"content": text[:_DISCORD_MOST_TEXT].removesuffix("\\"), "allowed_mentions": {"parse": []}}


def teams(notice: Notice, origin: Origin, notice_id: str) -> dict[str, Any]:
    """A message with one adaptive card."""
    facts = [{"title": name, "value": str(value)} for name, value in notice.finding.facts.items()]
    title, text = _cut(headline(notice, origin), _body(notice))
    color = "good" if notice.kind is NoticeKind.RESOLVED else _color(notice.finding.severity)
    body: list[dict[str, Any]] = [
        {"type": "TextBlock", "text": title, "weight": "bolder", "wrap": True, "color": color},
        {"type": "TextBlock", "text": text, "wrap": True},
    ]
    if facts:
        body.append({"type": "FactSet", "facts": facts[:20]})
    card = {
        "type": "AdaptiveCard",
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "version": "1.4",
        "body": body,
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def headline(notice: Notice, origin: Origin) -> str:
    """``CRITICAL on db-1 (cluster 74…): WAL of the last 400 s is not in the repository``."""
    match notice.kind:
        case NoticeKind.RESOLVED:
            word = "RESOLVED"
        case NoticeKind.TEST:
            word = "TEST"
        case _:
            word = notice.finding.severity.word.upper()
    return f"{word} on {origin.host} (cluster {origin.cluster}): {notice.finding.summary}"


def _body(notice: Notice) -> str:
    since = notice.since.isoformat(sep=" ", timespec="seconds")
    if notice.kind is NoticeKind.RESOLVED:
        return f"It lasted from {since} to {notice.time.isoformat(sep=' ', timespec='seconds')}. [{notice.finding.key}]"
    return f"{notice.finding.hint}\nsince {since} [{notice.finding.key}]"


def _status(notice: Notice) -> str:
    return {NoticeKind.RESOLVED: "resolved", NoticeKind.TEST: "test"}.get(notice.kind, "open")


def _cut(title: str, body: str) -> tuple[str, str]:
    """Of a usual length; cut before anything is escaped, so that no escape is cut through."""
    title = " ".join(title.split())
    return title[:_MOST_TITLE], body if len(body) <= _MOST_TEXT else f"{body[:_MOST_TEXT]}…"


def _plain(value: FactValue) -> FactValue:
    """JSON has no infinity."""
    return None if isinstance(value, float) and not isfinite(value) else value


def _color(severity: Severity) -> str:
    return "attention" if severity is Severity.CRITICAL else "warning"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
