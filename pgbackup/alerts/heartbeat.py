"""The heartbeat: a dead man's switch in the style of healthchecks.io. It is pinged only while health is green.

``<url>/start`` once at the start, ``<url>`` for green, ``<url>/fail`` with a text while it is critical; on a warning
nothing is sent, so that whoever watches notices by the silence as well when nobody mends it. At most one ping waits,
the newest; what is said again is said at most twice a minute; and pings have a thread of their own.
"""

from __future__ import annotations

import logging
import threading
import time
from urllib.parse import urlsplit, urlunsplit

from pgbackup.alerts.address import host_of
from pgbackup.alerts.base import Answer, DeliveryError, bug
from pgbackup.alerts.http_sender import HttpSender
from pgbackup.core.alert_book import Notice
from pgbackup.core.findings import Finding, Severity

_MOST_TEXT = 2000
_FAILURES_TO_TELL = 3
PAUSE_SECONDS = 25.0
"""Between pings that say the same. Health is looked at every few seconds after a start, and healthchecks.io takes only
some a minute for each check; what is more it refuses (429, by slug) or drops (200, by UUID)."""
_HEADERS = {"Content-Type": "text/plain; charset=utf-8"}
_log = logging.getLogger(__name__)


class Heartbeat:
    """Pings one address. ``ping`` never blocks."""

    def __init__(self, url: str, *, pause: float = PAUSE_SECONDS) -> None:
        self._url = url
        self._pause = pause
        self._sender = HttpSender()
        self._changed = threading.Condition()
        self._waiting: tuple[str, bytes] | None = ("start", b"")
        self._finishing = False
        self._delivered: tuple[str | None, float] = None, 0.0
        """The last action that arrived, and when; None while the last ping failed."""
        self._failures = 0
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def name(self) -> str:
        return f"heartbeat {host_of(self._url)}"

    @property
    def key(self) -> str:
        """Of the finding that it does not arrive."""
        return f"alert-channel:{self.name}"

    def start(self) -> None:
        self._thread.start()

    def ping(self, verdict: str, text: str = "") -> None:
        """Tell of one round of health: ``ok``, ``warning`` or ``critical``."""
        action = {"ok": "", "critical": "fail"}.get(verdict)
        if action is None:
            return
        with self._changed:
            said, at = self._delivered
            if action == said and time.monotonic() - at < self._pause and self._waiting is None:
                return
            self._waiting = action, text[:_MOST_TEXT].encode(errors="replace")
            self._changed.notify()

    def send(self, _notice: Notice) -> Answer:
        """For the test of all channels, before ``start``: pings ``/start``, which is neither green nor red."""
        return self._sender.post(ping_url(self._url, "start"), b"", _HEADERS)

    def close(self) -> None:
        self._sender.close()

    def finding(self) -> Finding | None:
        with self._changed:
            if self._failures < _FAILURES_TO_TELL:
                return None
            return Finding(
                self.key,
                Severity.WARNING,
                f"the heartbeat does not arrive: {self.name}: {self._problem}",
                "Mend its address or the network.",
                {"failures": self._failures},
            )

    def finish(self, seconds: float) -> None:
        """End; a ping under way has so many seconds."""
        with self._changed:
            self._finishing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, seconds))

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None and not self._finishing:
                    self._changed.wait()
                if self._waiting is None:
                    break
                (action, body), self._waiting = self._waiting, None
            self._send(action, body)
        self._sender.close()

    def _send(self, action: str, body: bytes) -> None:
        try:
            self._sender.post(ping_url(self._url, action), body, _HEADERS)
        except DeliveryError as exc:
            self._failed(str(exc))
        except Exception as exc:  # noqa: BLE001 - a bug must neither end the thread nor go unseen
            self._failed(bug(exc))
        else:
            with self._changed:
                self._failures = 0
                self._delivered = action, time.monotonic()

    def _failed(self, problem: str) -> None:
        _log.warning("%s: %s", self.name, problem)
        with self._changed:
            self._failures += 1
            self._problem = problem
            self._delivered = None, 0.0


def ping_url(url: str, action: str) -> str:
    """``<url>/<action>``, its query kept; the bare URL without an action."""
    if not action:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{action}"))
