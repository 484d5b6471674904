"""The heartbeat: a dead man's switch in the style of healthchecks.io. It is pinged only while health is green.

``<url>/start`` once at the start, ``<url>`` for green, ``<url>/fail`` with a text while it is critical; on a warning
nothing is sent, so that whoever watches notices by the silence as well when nobody mends it. At most one ping waits,
the newest, and pings have a thread of their own.
"""

from __future__ import annotations

import logging
import threading
from urllib.parse import urlsplit, urlunsplit

from pgbackup.alerts.address import host_of
from pgbackup.alerts.base import Answer, DeliveryError, bug
from pgbackup.alerts.http_sender import HttpSender
from pgbackup.core.alert_book import Notice
from pgbackup.core.findings import Finding, Severity

_MOST_TEXT = 2000
_FAILURES_TO_TELL = 3
_HEADERS = {"Content-Type": "text/plain; charset=utf-8"}
_log = logging.getLogger(__name__)


class Heartbeat:
    """Pings one address. ``ping`` never blocks."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._sender = HttpSender()
        self._changed = threading.Condition()
        self._waiting: tuple[str, bytes] | None = ("start", b"")
        self._finishing = False
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

    def _failed(self, problem: str) -> None:
        _log.warning("%s: %s", self.name, problem)
        with self._changed:
            self._failures += 1
            self._problem = problem


def ping_url(url: str, action: str) -> str:
    """``<url>/<action>``, its query kept; the bare URL without an action."""
    if not action:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{action}"))
