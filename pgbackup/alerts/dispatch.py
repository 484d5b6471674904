"""Delivers notices: a thread for each channel, so that one that hangs or is dead delays nobody else.

``submit`` never blocks. What waits for a channel is kept by the finding's key and only the newest notice of a key is
sent, so a dead channel holds a bounded number of notices and tells the truth of now when it comes back. A delivery is
retried with growing pauses; a channel that fails is itself a finding, which the other channels tell.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pgbackup.alerts.base import Channel, DeliveryError
from pgbackup.core.alert_book import Notice, NoticeKind
from pgbackup.core.findings import Finding, Severity

_FIRST_PAUSE_SECONDS = 1.0
_LAST_PAUSE_SECONDS = 600.0
_MOST_WAITING = 500
_FAILURES_TO_TELL = 2
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

    def __init__(self, channels: Sequence[Channel], *, first_pause: float = _FIRST_PAUSE_SECONDS) -> None:
        self._lines = [_Line(channel, first_pause) for channel in channels]

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

    def drain(self, seconds: float) -> None:
        """Give what waits so many seconds to be delivered, once more each, and end."""
        deadline = time.monotonic() + seconds
        for line in self._lines:
            line.finish()
        for line in self._lines:
            line.join(deadline - time.monotonic())


def try_channels(channels: Sequence[Channel]) -> list[Tried]:
    """Send a test notice through every channel, once, and say what each answered."""
    now = datetime.now(UTC)
    finding = Finding("test", Severity.WARNING, "this is a test of pgbackup's alerts", "Nothing has to be done.")
    notice = Notice(NoticeKind.TEST, finding, now, now)
    results = []
    for channel in channels:
        begin = time.monotonic()
        try:
            ok, answer = True, channel.send(notice).text
        except DeliveryError as exc:
            ok, answer = False, str(exc)
        results.append(Tried(channel.name, ok, answer, time.monotonic() - begin))
    return results


class _Line:
    """The notices that wait for one channel, and the thread that sends them."""

    def __init__(self, channel: Channel, first_pause: float) -> None:
        self._channel = channel
        self._first_pause = first_pause
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, Notice] = OrderedDict()
        self._finishing = False
        self._failures = 0
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name=f"alerts {channel.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, notices: Sequence[Notice]) -> None:
        with self._changed:
            for notice in notices:
                self._put(notice)
            self._changed.notify()

    def finding(self) -> Finding | None:
        with self._changed:
            if self._failures < _FAILURES_TO_TELL:
                return None
            return Finding(
                f"alert-channel:{self._channel.name}",
                Severity.WARNING,
                f"alerts do not arrive: {self._channel.name}: {self._problem}",
                "Mend its address or the network; `pgbackup alerts test` shows what each channel answers.",
                {"failures": self._failures, "waiting": len(self._waiting)},
            )

    def finish(self) -> None:
        with self._changed:
            self._finishing = True
            self._changed.notify()

    def join(self, seconds: float) -> None:
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            _log.warning("alerts to %s were not all delivered", self._channel.name)

    # -- the channel's own thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while (notice := self._next()) is not None:
            try:
                self._channel.send(notice)
            except DeliveryError as exc:
                self._failed(notice, exc)
            except Exception as exc:  # noqa: BLE001 - a channel's bug must neither end its thread nor go unseen
                _log.exception("channel %s failed", self._channel.name)
                self._failed(notice, DeliveryError(type(exc).__name__, retryable=False))
            else:
                self._delivered(notice)
        self._channel.close()

    def _next(self) -> Notice | None:
        """The oldest that waits; None when there is nothing more to do."""
        with self._changed:
            while not self._waiting:
                if self._finishing:
                    return None
                self._changed.wait()
            return self._waiting.popitem(last=False)[1]

    def _delivered(self, notice: Notice) -> None:
        _log.debug("alert %s (%s) delivered to %s", notice.finding.key, notice.kind, self._channel.name)
        with self._changed:
            self._failures = 0
            self._problem = ""

    def _failed(self, notice: Notice, exc: DeliveryError) -> None:
        with self._changed:
            self._failures += 1
            self._problem = str(exc)
            failures = self._failures
            if exc.retryable and notice.finding.key not in self._waiting:
                self._waiting[notice.finding.key] = notice
                self._waiting.move_to_end(notice.finding.key, last=False)
            if not exc.retryable:
                # The next notice may be refused as well; but trying this one again would change nothing.
                self._failures = max(failures, _FAILURES_TO_TELL)
        _log.warning("alert %s could not be sent to %s: %s", notice.finding.key, self._channel.name, exc)
        if exc.retryable:
            self._pause(failures, exc.retry_after)

    def _pause(self, failures: int, asked: float | None) -> None:
        pause = min(self._first_pause * 2 ** min(failures - 1, 20), _LAST_PAUSE_SECONDS)
        until = time.monotonic() + max(pause, min(asked or 0.0, _LAST_PAUSE_SECONDS))
        with self._changed:
            if self._finishing:
                # One more try was made: what is left is left.
                self._waiting.clear()
            while not self._finishing and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def _put(self, notice: Notice) -> None:
        key = notice.finding.key
        if key == f"alert-channel:{self._channel.name}":
            return
        earlier = self._waiting.pop(key, None)
        if earlier is not None and earlier.kind is NoticeKind.OPENED and notice.kind is NoticeKind.RESOLVED:
            # Nobody was told that it began.
            return
        self._waiting[key] = notice
        while len(self._waiting) > _MOST_WAITING:
            dropped, _ = self._waiting.popitem(last=False)
            _log.warning("too many alerts wait for %s: %s is dropped", self._channel.name, dropped)
