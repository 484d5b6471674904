"""A Sentry client of our own: nothing of the process is hooked, and whether an event arrived is known.

The one place that imports sentry_sdk. Its integrations stay off (the logging one would send every alert twice), and no
stack variables, no personal data (the default) and no performance data are sent. The library sends from a thread and
drops what fails; its transport tells us (``on_dropped_event``), so a dead endpoint is seen.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import sentry_sdk
from sentry_sdk.transport import HttpTransport
from sentry_sdk.utils import BadDsn, Dsn

from pgbackup.alerts.base import DeliveryError

_WAIT_SECONDS = 20.0
_LATE_SECONDS = 10.0
_REASONS = {
    "network": "the network or the server failed",
    "network_error": "the network or the server failed",
    "self_rate_limits": "Sentry has asked for a pause",
}
_FINAL_REASONS = ("status_400", "status_401", "status_403", "status_404", "status_413")


def check_dsn(dsn: str) -> None:
    """Raises ValueError for what is no DSN; the message does not show it."""
    try:
        Dsn(dsn)
    except BadDsn:
        raise ValueError("expected https://<key>@<host>/<project>") from None


class SentryClient:
    """Sends one event at a time and waits for what became of it. Thread-safe."""

    def __init__(self, dsn: str, *, release: str, server_name: str) -> None:
        # The library's own errors may quote answers; ours say what is needed.
        logging.getLogger("sentry_sdk.errors").setLevel(logging.CRITICAL)
        self.host = urlsplit(dsn).hostname or "?"
        self._lock = threading.Lock()
        self._users_lock = threading.Lock()
        self._users = 0
        self._dropped: list[str] = []
        self._late = False
        self._client = sentry_sdk.Client(
            dsn=dsn,
            release=release,
            server_name=server_name,
            transport=self._transport_class(),
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            include_source_context=False,
            auto_session_tracking=False,
            send_client_reports=False,
            attach_stacktrace=False,
            max_breadcrumbs=0,
            # Not brotli, which is only there for old archives: relays and self-hosted servers all know gzip.
            _experiments={"transport_compression_level": 9},
        )

    def capture(self, event: Mapping[str, Any]) -> str:
        """Send an event or a check-in; returns its id. Raises DeliveryError."""
        with self._lock:
            if self._late:
                # What became of an earlier one must not be taken for what becomes of this one.
                self._client.flush(timeout=_LATE_SECONDS)
            self._dropped.clear()
            # A scope of its own: nothing of the process' gets into the event.
            found = self._client.capture_event(dict(event), scope=sentry_sdk.Scope())  # type: ignore[arg-type]
            begin = time.monotonic()
            self._client.flush(timeout=_WAIT_SECONDS)
            self._late = time.monotonic() - begin >= _WAIT_SECONDS
            if self._dropped:
                reason = self._dropped[0]
                text = _REASONS.get(reason, reason.replace("status_", "HTTP "))
                raise DeliveryError(text, retryable=reason not in _FINAL_REASONS)
            if self._late:
                raise DeliveryError(f"no answer within {_WAIT_SECONDS:.0f} s", retryable=True)
            if found is None:
                raise DeliveryError("the event was not accepted by the library", retryable=False)
            return found

    def join(self) -> None:
        """One more uses this client: the channel, the check-ins."""
        with self._users_lock:
            self._users += 1

    def leave(self) -> None:
        """One of them is done; the last one closes it, so that the order in which they end loses nothing."""
        with self._users_lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self.close()

    def close(self) -> None:
        self._client.close(timeout=0.5)

    def _transport_class(self) -> type[HttpTransport]:
        dropped = self._dropped

        class Transport(HttpTransport):
            def on_dropped_event(self, _reason: str) -> None:
                dropped.append(_reason)

        return Transport
