"""No token, key or password is in a log line at the most talkative level, in an exception or in a finding."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from datetime import timedelta

import pytest

from pgbackup.alerts.base import DeliveryError, Origin
from pgbackup.alerts.channels import AlertSettings, Channels, build_channels
from pgbackup.alerts.dispatch import Dispatch, try_channels
from pgbackup.alerts.monitors import CheckIns, Monitor
from pgbackup.core.schedule_spec import ScheduleSpec
from tests.fix_receiver import Receiver
from tests.made_notice import notice
from tests.waiting import wait_for

ORIGIN = Origin("cluster", "db-1", "s3://bucket/prefix", "0.1.0")
SECRETS = {
    "path": "T0KEN-of-the-path",
    "query": "s1g-of-the-query",
    "password": "pa55-of-the-url",
    "hmac": "hmac-s3cret",
    "ping": "p1ng-uuid",
    "apprise": "appr1se-token",
    "dsn": "0123456789abcdef0123456789abcdef",
}


def settings(root: str) -> AlertSettings:
    """Every kind of channel at ``root`` (host:port)."""
    return AlertSettings(
        ORIGIN,
        (
            f"http://user:{SECRETS['password']}@{root}/{SECRETS['path']}?sig={SECRETS['query']}",
            f"json://{root}/{SECRETS['apprise']}",
        ),
        SECRETS["hmac"],
        f"http://{SECRETS['dsn']}@{root}/42",
        f"http://{root}/{SECRETS['ping']}",
    )


@pytest.fixture
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """At debug, whatever a library's loggers were set to by earlier tests."""
    names = ("httpx", "httpcore", "apprise", "urllib3", "sentry_sdk.errors", "requests")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.NOTSET)
    caplog.set_level(logging.DEBUG)
    yield caplog
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def use(built: Channels) -> str:
    """Everything once: a test, a notice, a ping and a check-in. Returns all that was said besides the log."""
    assert built.sentry is not None
    assert built.heartbeat is not None
    said = [str(try_channels(built.channels)), repr(built), str([channel.name for channel in built.channels])]
    for channel in built.channels:
        try:
            channel.send(notice())
        except DeliveryError as exc:
            said.append("".join(traceback.format_exception(exc)))
    dispatch, check_ins = Dispatch(built.channels, first_pause=0.01), CheckIns(built.sentry, "c", first_pause=0.01)
    dispatch.start()
    check_ins.start()
    built.heartbeat.start()
    dispatch.submit([notice()])
    check_ins.note(Monitor.of_schedule("x", ScheduleSpec.parse("every 1 hour"), "UTC", margin=timedelta(hours=1)), "ok")
    built.heartbeat.ping("critical", "text")
    built.heartbeat.finish(5)
    check_ins.finish(5)
    wait_for(lambda: all(not line._waiting or line._failures > 1 for line in dispatch._lines))
    said += [finding.summary for finding in dispatch.findings()]
    dispatch.drain(5)
    return "\n".join(said)


@pytest.mark.parametrize("status", [200, 302, 404, 429, 500])
def test_no_secret_is_said(receiver: Receiver, everything_is_logged: pytest.LogCaptureFixture, status: int) -> None:
    receiver.default = (status, {"Location": "http://127.0.0.1:1/"} if status == 302 else {}, 0.0)
    receiver.echo = True
    said = use(build_channels(settings(f"127.0.0.1:{receiver.port}")))
    check(said + log_of(everything_is_logged))
    assert len(receiver.requests) >= 8


def test_no_secret_is_said_when_nobody_listens(everything_is_logged: pytest.LogCaptureFixture) -> None:
    said = use(build_channels(settings("127.0.0.1:1")))
    check(said + log_of(everything_is_logged))


def test_no_secret_is_said_of_settings_that_cannot_be_used(everything_is_logged: pytest.LogCaptureFixture) -> None:
    bad = AlertSettings(
        ORIGIN,
        (f"http://[bad/{SECRETS['path']}", f"nosuch://{SECRETS['apprise']}", f"http://h ost/{SECRETS['query']}"),
        SECRETS["hmac"],
        f"ftp://{SECRETS['dsn']}@host/1",
        f"file:///{SECRETS['ping']}",
    )
    built = build_channels(bad)
    assert (built.channels, built.sentry, built.heartbeat, len(built.problems)) == ((), None, None, 5)
    check(repr(bad) + repr(built) + built.problem_text() + log_of(everything_is_logged))


def log_of(caplog: pytest.LogCaptureFixture) -> str:
    records = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    return caplog.text + "\n".join(records)


def check(said: str) -> None:
    assert [name for name, secret in SECRETS.items() if secret in said] == []
