"""Delivers notices: a thread for each channel, so that one that hangs or is dead delays nobody else.

``submit`` never blocks. What waits for a channel is kept by the finding's key and only the newest notice of a key is
sent, so a dead channel holds a bounded number of notices and tells the truth of now when it comes back. A delivery is
retried with growing pauses (notice_queue.py); a channel that fails, or hangs although it is bounded, is itself a
finding, which the other channels tell.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pgbackup.alerts.base import Channel, DeliveryError, bug
from pgbackup.alerts.notice_queue import FIRST_PAUSE_SECONDS, NoticeQueue, Waiting
from pgbackup.core.alert_book import Notice, NoticeKind
from pgbackup.core.findings import Finding, Severity
from pgbackup.logs import log_fields

_FAILURES_TO_TELL = 2
_HANGS_SECONDS = 60.0
_TEST_SECONDS = 40.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a test notice."""

    channel: str
    ok: bool
    answer: str
    seconds: float


class Dispatch:
    """All channels. Thread-safe."""

    def __init__(self, channels: Sequence[Channel], *, first_pause: float = FIRST_PAUSE_SECONDS) -> None:
        names = channel_names(channels)
        self._lines = [_Line(channel, name, first_pause) for channel, name in zip(channels, names, strict=True)]

    def start(self) -> None:
        for line in self._lines:
            line.start()

    def submit(self, notices: Sequence[Notice]) -> None:
        """Hand over for delivery; returns at once."""
        for line in self._lines:
            line.submit(notices)

    def findings(self) -> list[Finding]:
        """Channels that fail now."""
        return [finding for line in self._lines if (finding := line.finding())]

    def undelivered(self) -> dict[str, Notice]:
        """By key, what some channel has not taken yet."""
        return {notice.finding.key: notice for line in self._lines for notice in line.undelivered()}

    def drain(self, seconds: float) -> None:
        """Give what waits so many seconds to be delivered, once more each, and end."""
        deadline = time.monotonic() + seconds
        for line in self._lines:
            line.finish()
        for line in self._lines:
            line.join(deadline - time.monotonic())


def channel_names(channels: Sequence[Channel]) -> list[str]:
    """A name for each, numbered where channels share one, as two addresses at one service do."""
    names = [channel.name for channel in channels]
    count, seen = Counter(names), Counter[str]()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(f"{name} ({seen[name]})" if count[name] > 1 else name)
    return unique


def try_channels(channels: Sequence[Channel], *, seconds: float = _TEST_SECONDS) -> list[Tried]:
    """Send a test notice through every channel, once and all together, and say what each answered in that time."""
    now = datetime.now(UTC)
    finding = Finding("test", Severity.WARNING, "this is a test of pgbackup's alerts", "Nothing has to be done.")
    notice = Notice(NoticeKind.TEST, finding, now, now)
    names = channel_names(channels)
    tried: dict[str, Tried] = {}

    def send(channel: Channel, name: str) -> None:
        begin = time.monotonic()
        ok, answer = _try(channel, notice)
        tried[name] = Tried(name, ok, answer, time.monotonic() - begin)

    threads = [threading.Thread(target=send, args=each, daemon=True) for each in zip(channels, names, strict=True)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [tried.get(name) or Tried(name, False, f"no answer within {seconds:.0f} s", seconds) for name in names]


def _try(channel: Channel, notice: Notice) -> tuple[bool, str]:
    try:
        return True, channel.send(notice).text
    except DeliveryError as exc:
        return False, str(exc)
    except Exception as exc:  # noqa: BLE001 - a channel's bug must not keep the others from being tried
        return False, bug(exc)


class _Line:
    """The notices that wait for one channel, and the thread that sends them."""

    def __init__(self, channel: Channel, name: str, first_pause: float) -> None:
        self._channel = channel
        self._name = name
        self._changed = threading.Condition()
        self._waiting = NoticeQueue(first_pause)
        self._finishing = False
        self._failures = 0
        self._problem = ""
        self._sending_since: float | None = None
        self._sending: Notice | None = None
        self._left: list[Notice] = []
        self._thread = threading.Thread(target=self._run, name=f"alerts {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, notices: Sequence[Notice]) -> None:
        with self._changed:
            for notice in notices:
                # Nobody is told of himself.
                if notice.finding.key != self._key and (dropped := self._waiting.put(notice)):
                    _log.warning(
                        "too many alerts wait for %s: %s is dropped",
                        self._name,
                        dropped.finding.key,
                        extra=log_fields(repeat_key=f"dropped {self._name}"),
                    )
            self._changed.notify()

    def finding(self) -> Finding | None:
        with self._changed:
            problem = self._problem if self._failures >= _FAILURES_TO_TELL else ""
            if self._sending_since is not None and time.monotonic() - self._sending_since > _HANGS_SECONDS:
                problem = "a delivery hangs"
            if not problem:
                return None
            return Finding(
                self._key,
                Severity.WARNING,
                f"alerts do not arrive: {self._name}: {problem}",
                "Mend its address or the network; `pgbackup alerts test` shows what each channel answers.",
                {"failures": self._failures, "waiting": len(self._waiting)},
            )

    def undelivered(self) -> list[Notice]:
        with self._changed:
            return [*self._left, *([self._sending] if self._sending is not None else []), *self._waiting.notices()]

    def finish(self) -> None:
        with self._changed:
            self._finishing = True
            self._changed.notify()

    def join(self, seconds: float) -> None:
        if self._thread.ident is None:
            return
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            _log.warning("alerts to %s were not all delivered", self._name)

    @property
    def _key(self) -> str:
        return f"alert-channel:{self._name}"

    # -- the channel's own thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            try:
                self._channel.send(entry.notice)
            except DeliveryError as exc:
                self._failed(entry, exc)
            except Exception as exc:  # noqa: BLE001 - a channel's bug must neither end its thread nor go unseen
                self._failed(entry, DeliveryError(bug(exc), retryable=False))
            else:
                self._delivered(entry)
        self._channel.close()

    def _next(self) -> Waiting | None:
        """What to send now, once it is time; None when the end has come."""
        with self._changed:
            self._sending_since = self._sending = None
            while True:
                now = time.monotonic()
                entry = self._waiting.take(now, at_once=self._finishing)
                if entry is not None:
                    self._sending_since, self._sending = now, entry.notice
                    return entry
                if self._finishing:
                    return None
                self._changed.wait(self._waiting.seconds_to_wait(now))

    def _delivered(self, entry: Waiting) -> None:
        finding = entry.notice.finding
        _log.debug("alert %s (%s) is delivered to %s", finding.key, entry.notice.kind, self._name)
        with self._changed:
            self._waiting.delivered()
            self._failures = 0

    def _failed(self, entry: Waiting, exc: DeliveryError) -> None:
        key = entry.notice.finding.key
        with self._changed:
            # One that is refused is told at once: nothing that waits would change it.
            self._failures = self._failures + 1 if exc.retryable else max(self._failures + 1, _FAILURES_TO_TELL)
            self._problem = str(exc)
            self._sending = None
            # At the end everything is tried once more, and no more.
            again = not self._finishing and self._waiting.put_back(
                entry, time.monotonic(), asked=exc.retry_after, refused=not exc.retryable
            )
            if self._finishing:
                # For the next process to tell.
                self._left.append(entry.notice)
        outcome = "" if again else ", and is left to the next start" if self._finishing else ", and is lost"
        _log.warning("alert %s could not be sent to %s%s: %s", key, self._name, outcome, exc)
