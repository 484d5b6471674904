"""Webhooks as a receiver sees them: signed bytes, the shape of the service, no token in what we say or log."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from pgbackup.alerts.base import DeliveryError
from pgbackup.alerts.channels import AlertSettings, build_channels
from pgbackup.alerts.dispatch import try_channels
from pgbackup.alerts.heartbeat import Heartbeat, ping_url
from pgbackup.alerts.webhook import SIGNATURE_HEADER, Webhook
from pgbackup.alerts.webhook_shapes import discord, generic, shape_for, slack, teams
from pgbackup.core.alert_book import NoticeKind
from pgbackup.core.findings import Severity
from tests.fix_receiver import Receiver
from tests.made_notice import ORIGIN, notice
from tests.waiting import wait_for

TOKEN = "T0KEN-which-nobody-may-see"


MakeHook = Callable[..., Webhook]


@pytest.fixture
def hook(receiver: Receiver) -> Iterator[MakeHook]:
    """``hook(secret=None, url=None)``: a webhook of the receiver's, or of another address."""
    made: list[Webhook] = []

    def make(secret: bytes | None = None, url: str = "") -> Webhook:
        made.append(Webhook(url or f"{receiver.url}/services/{TOKEN}", ORIGIN, secret=secret))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_the_signature_is_that_of_the_bytes(receiver: Receiver, hook: MakeHook) -> None:
    assert hook(b"the secret").send(notice()).text == "HTTP 200"
    (request,) = receiver.requests
    expected = hmac.new(b"the secret", request.body, hashlib.sha256).hexdigest()
    assert request.headers[SIGNATURE_HEADER] == f"sha256={expected}"
    assert request.headers["Content-Type"] == "application/json"
    assert request.path == f"/services/{TOKEN}"


def test_the_document(receiver: Receiver, hook: MakeHook) -> None:
    hook().send(notice())
    document = json.loads(receiver.requests[0].body)
    assert len(document.pop("id")) == 32
    assert document == {
        "format": 1, "kind": "opened", "status": "open", "key": "wal:not-durable", "severity": "critical",
        "summary": "WAL of <5> s & more", "hint": "Mend it.", "facts": {"lag": 5}, "count": 1,
        "since": "2026-01-31T12:00:00+00:00", "time": "2026-01-31T12:01:00+00:00", "cluster": "bucket/prefix",
        "host": "db-1", "repository": "s3://bucket/prefix", "version": "0.1.0",
    }  # fmt: skip
    assert SIGNATURE_HEADER not in receiver.requests[0].headers


def test_a_receiver_knows_a_delivery_that_is_retried(receiver: Receiver, hook: MakeHook) -> None:
    receiver.answers.append((503, {}, 0.0))
    webhook = hook()
    with pytest.raises(DeliveryError):
        webhook.send(notice())
    webhook.send(notice())
    webhook.send(notice(kind=NoticeKind.RESOLVED))
    first, second, third = (json.loads(request.body)["id"] for request in receiver.requests)
    assert first == second != third


def test_a_fact_without_bound_is_json_all_the_same(receiver: Receiver, hook: MakeHook) -> None:
    hook().send(notice(facts={"age_seconds": float("inf")}))
    assert json.loads(receiver.requests[0].body)["facts"] == {"age_seconds": None}
    assert b"Infinity" not in receiver.requests[0].body


@pytest.mark.parametrize(
    ("host", "shape"),
    [
        ("hooks.slack.com", slack), ("discord.com", discord), ("discordapp.com", discord),
        ("contoso.webhook.office.com", teams), ("prod-1.westeurope.logic.azure.com", teams),
        ("x.environment.api.powerplatform.com", teams), ("example.com", generic), ("hooks.slack.com.evil.com", generic),
    ],
)  # fmt: skip
def test_the_host_decides_the_shape(host: str, shape: object) -> None:
    assert shape_for(host) is shape


def test_slack_text_is_escaped_and_discord_mentions_nobody() -> None:
    assert "WAL of &lt;5&gt; s &amp; more" in slack(notice(), ORIGIN, "")["text"]
    body = discord(notice(summary="@everyone " + "x" * 5000), ORIGIN, "")
    assert body["allowed_mentions"] == {"parse": []}
    assert len(body["content"]) <= 2000
    assert len(discord(notice(summary="_" * 5000, hint="*" * 5000), ORIGIN, "")["content"]) <= 2000
    assert r"slot pg\_backup\_x" in discord(notice(summary="slot pg_backup_x"), ORIGIN, "")["content"]
    cut = slack(notice(summary="&" * 5000, hint="<" * 5000), ORIGIN, "")["text"]
    assert cut.count("&") == cut.count(";"), "no escape is cut through"


def test_discord_takes_the_shape_of_slack_where_its_address_says_so() -> None:
    assert shape_for("discord.com", "/api/webhooks/1/T0KEN/slack") is slack
    assert shape_for("discord.com", "/api/webhooks/1/T0KEN") is discord


def test_teams_gets_a_card() -> None:
    message = teams(notice(severity=Severity.WARNING), ORIGIN, "")
    card = message["attachments"][0]["content"]
    assert (message["type"], card["type"]) == ("message", "AdaptiveCard")
    assert "WARNING on db-1" in card["body"][0]["text"]


def test_what_is_over_says_so() -> None:
    assert "RESOLVED on db-1" in slack(notice(kind=NoticeKind.RESOLVED), ORIGIN, "")["text"]


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(500, True), (503, True), (429, True), (408, True), (400, False), (404, False), (302, False)],
)
def test_what_is_tried_again(receiver: Receiver, hook: MakeHook, status: int, *, retryable: bool) -> None:
    receiver.answers.append((status, {"Location": "http://127.0.0.1:1/"}, 0.0))
    with pytest.raises(DeliveryError, match=f"HTTP {status}") as caught:
        hook().send(notice())
    assert caught.value.retryable is retryable
    assert len(receiver.requests) == 1


def test_the_receiver_says_when_to_come_again(receiver: Receiver, hook: MakeHook) -> None:
    receiver.answers.append((429, {"Retry-After": "7"}, 0.0))
    with pytest.raises(DeliveryError) as caught:
        hook().send(notice())
    assert caught.value.retry_after == 7


def test_no_token_is_ever_said(hook: MakeHook, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hook(b"s3cret").send(notice())
    dead = hook(url=f"http://127.0.0.1:1/services/{TOKEN}")
    with pytest.raises(DeliveryError) as caught:
        dead.send(notice())
    said = caplog.text + str(caught.value) + repr(caught.value) + dead.name
    assert TOKEN not in said
    assert "s3cret" not in said


def test_addresses_that_cannot_be_used_are_findings_and_the_others_work(receiver: Receiver) -> None:
    bad = ["ftp:", "http://", "https://[bad", "nosuchservice://x"]
    found = build_channels(
        AlertSettings(ORIGIN, (f"{receiver.url}/{TOKEN}", *bad), sentry_dsn="nonsense", heartbeat_url="file:///x")
    )
    assert found.heartbeat is None
    assert "SENTRY_DSN: expected https" in found.problem_text()
    assert [channel.name for channel in found.channels] == ["webhook 127.0.0.1"]
    assert len(found.problems) == len(bad) + 2
    for channel in found.channels:
        channel.close()
    assert all(p.key.startswith("alert-config:") and TOKEN not in p.summary for p in found.problems)


def test_the_heartbeat_pings_only_for_green_and_red(receiver: Receiver) -> None:
    heartbeat = Heartbeat(f"{receiver.url}/ping/{TOKEN}?a=b")
    heartbeat.start()
    receiver.wait(1)
    for count, (verdict, text) in enumerate((("ok", ""), ("critical", "no backup")), start=2):
        heartbeat.ping("warning")
        heartbeat.ping(verdict, text)
        receiver.wait(count)
    heartbeat.finish(5)
    root = f"/ping/{TOKEN}"
    assert [r.path for r in receiver.requests] == [f"{root}/start?a=b", f"{root}?a=b", f"{root}/fail?a=b"]
    assert receiver.requests[2].body == b"no backup"


def test_a_heartbeat_takes_any_text_and_tells_that_it_fails(receiver: Receiver) -> None:
    receiver.default = (500, {}, 0.0)
    heartbeat = Heartbeat(receiver.url)
    heartbeat.finish(1)
    heartbeat = Heartbeat(receiver.url)
    heartbeat.start()
    for count in range(1, 4):
        receiver.wait(count)
        heartbeat.ping("critical", "\udcff" + "ü" * 10_000)
    receiver.wait(4)
    wait_for(heartbeat.finding)
    receiver.default = (200, {}, 0.0)
    heartbeat.ping("ok")
    wait_for(lambda: heartbeat.finding() is None)
    heartbeat.finish(5)
    assert max(len(request.body) for request in receiver.requests) < 5000


def test_the_heartbeat_is_tried_with_the_channels(receiver: Receiver) -> None:
    built = build_channels(AlertSettings(ORIGIN, heartbeat_url=f"{receiver.url}/ping/{TOKEN}"))
    (tried,) = try_channels(built.testable)
    assert (tried.channel, tried.ok, receiver.requests[0].path) == ("heartbeat 127.0.0.1", True, f"/ping/{TOKEN}/start")
    built.testable[0].close()


def test_what_the_heartbeat_says_again_is_rare_and_a_change_comes_at_once(receiver: Receiver) -> None:
    """After a start health is looked at every five seconds, and services limit the pings of a minute."""
    heartbeat = Heartbeat(f"{receiver.url}/beat")
    heartbeat.start()
    for _ in range(20):
        heartbeat.ping("ok")
        wait_for(lambda: heartbeat._delivered[0] == "")
    heartbeat.ping("critical")
    wait_for(lambda: heartbeat._delivered[0] == "fail")
    heartbeat.ping("ok")
    wait_for(lambda: heartbeat._delivered[0] == "")
    heartbeat.finish(5)
    paths = [request.path for request in receiver.requests]
    assert [path for path in paths if path != "/beat/start"] == ["/beat", "/beat/fail", "/beat"]


def test_a_heartbeat_that_hangs_holds_nobody_up(receiver: Receiver) -> None:
    receiver.default = (200, {}, 5.0)
    heartbeat = Heartbeat(receiver.url)
    heartbeat.start()
    begin = time.monotonic()
    for _ in range(1000):
        heartbeat.ping("ok")
    heartbeat.finish(0.2)
    assert time.monotonic() - begin < 3


def test_ping_urls() -> None:
    assert ping_url("https://hc.example/uuid/", "fail") == "https://hc.example/uuid/fail"
    assert ping_url("https://hc.example/uuid", "") == "https://hc.example/uuid"


def test_other_services_by_apprise(receiver: Receiver) -> None:
    (channel,) = build_channels(AlertSettings(ORIGIN, (f"json://127.0.0.1:{receiver.port}/{TOKEN}",))).channels
    assert channel.name == "apprise json"
    channel.send(notice())
    assert "CRITICAL on db-1" in json.loads(receiver.requests[0].body)["title"]
    receiver.default = (500, {}, 0.0)
    with pytest.raises(DeliveryError):
        channel.send(notice())


def test_a_service_that_takes_html_gets_it_escaped(receiver: Receiver) -> None:
    url = f"json://127.0.0.1:{receiver.port}/?format=html"
    (channel,) = build_channels(AlertSettings(ORIGIN, (url,))).channels
    channel.send(notice(hint="wait until a < b & c"))
    assert "wait until a &lt; b &amp; c" in receiver.requests[0].body.decode().replace("&nbsp;", " ")


LATE_IMPORTS = """
import sys
import pgbackup.alerts.channels as channels, pgbackup.alerts.dispatch, pgbackup.core.alert_book
from pgbackup.alerts.base import Origin
channels.build_channels(channels.AlertSettings(Origin("c", "h", "r", "v")))
print(sorted({"httpx", "httpcore", "sentry_sdk", "apprise", "requests", "urllib3"} & set(sys.modules)))
"""


def test_what_is_not_configured_is_not_imported() -> None:
    done = subprocess.run([sys.executable, "-c", LATE_IMPORTS], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_apprise_missing_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    (problem,) = build_channels(AlertSettings(ORIGIN, (f"tgram://{TOKEN}/1",))).problems
    assert "pip install 'pgbackup[apprise]'" in problem.summary
    assert TOKEN not in problem.summary
