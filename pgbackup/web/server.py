"""Serves the pages with waitress, in threads of its own; it starts and stops within a bound.

The socket is bound here, so that a port in use is an error of the settings, said at the start. Requests have no body,
are small, and come from few: the limits are low. waitress's loop is told to end through its own trigger, because
closing its sockets from another thread would pull them away from under ``select``.
"""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import suppress
from typing import Any

import waitress

from pgbackup.config.listen import ListenAddress
from pgbackup.errors import ConfigError
from pgbackup.web.pages import Pages, WebSources

STOP_SECONDS = 1.0
_THREADS = 2
_BACKLOG = 32
_LIMITS = {
    "connection_limit": 50,
    "channel_timeout": 30,
    "cleanup_interval": 10,
    "max_request_header_size": 16 << 10,
    "max_request_body_size": 1 << 10,
}
_log = logging.getLogger(__name__)


class WebServer:
    """``start`` binds and serves, ``stop`` ends it; a context manager does both."""

    def __init__(self, listen: ListenAddress, sources: WebSources) -> None:
        self._listen = listen
        self._pages = Pages(sources)
        self._map: dict[int, Any] = {}
        self._server: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Bind and serve. Raises ConfigError when the address cannot be used."""
        bound = _bind(self._listen)
        # Its warnings about a queue of two requests are no news.
        logging.getLogger("waitress").setLevel(logging.ERROR)
        self._server = waitress.create_server(
            self._pages,
            map=self._map,
            sockets=[bound],
            threads=_THREADS,
            backlog=_BACKLOG,
            ident="",
            clear_untrusted_proxy_headers=True,
            **_LIMITS,
        )
        self._thread = threading.Thread(target=self._server.run, name="http", daemon=True)
        self._thread.start()
        _log.info("serving metrics and status at http://%s", self.address)

    @property
    def address(self) -> ListenAddress:
        """Where it really listens: with the port that the system chose, when it was asked to."""
        return ListenAddress(self._listen.host, int(self._server.effective_port))

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End it, within about so many seconds; a request under way may be cut off."""
        if self._thread is None:
            return
        # When a request that ends wakes the server between the two steps of this, all is closed before the second one.
        with suppress(OSError):
            self._server.trigger.pull_trigger(self._close_all)
        self._thread.join(seconds)
        self._server.task_dispatcher.shutdown(timeout=seconds)
        self._thread = None

    def _close_all(self) -> None:
        """In the server's own thread, whose loop ends when nothing is left."""
        for channel in list(self._map.values()):
            channel.close()
        self._map.clear()

    def __enter__(self) -> WebServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _bind(listen: ListenAddress) -> socket.socket:
    host = listen.host or None
    try:
        found = socket.getaddrinfo(host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # IPv4 first: "localhost" is both, and most scrapers mean 127.0.0.1.
        family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        bound = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise _unusable(listen, exc) from exc
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as exc:
        bound.close()
        raise _unusable(listen, exc) from exc
    return bound


def _unusable(listen: ListenAddress, exc: OSError) -> ConfigError:
    return ConfigError(
        f"PGBACKUP_HTTP: cannot listen on {listen}",
        detail=exc.strerror or str(exc),
        hint="Name another address or port, or turn it off with PGBACKUP_HTTP=off.",
    )
