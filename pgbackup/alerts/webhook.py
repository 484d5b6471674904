"""Webhooks: a POST for each notice, signed when there is a secret.

``X-Pgbackup-Signature: sha256=<hex>`` is the HMAC-SHA256 of the exact bytes of the body; a receiver computes it over
what it read, before parsing. ``id`` in the body is the same when a delivery is retried: a receiver may get it twice.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from urllib.parse import urlsplit

from pgbackup.alerts.address import host_of
from pgbackup.alerts.base import Answer, Origin, notice_id
from pgbackup.alerts.http_sender import HttpSender
from pgbackup.alerts.webhook_shapes import generic, shape_for
from pgbackup.core.alert_book import Notice

SIGNATURE_HEADER = "X-Pgbackup-Signature"


class Webhook:
    """One address; its shape follows from its host."""

    def __init__(self, url: str, origin: Origin, *, secret: bytes | None = None) -> None:
        self._url = url
        self._origin = origin
        self._secret = secret
        self._host = host_of(url)
        self._shape = shape_for(self._host, urlsplit(url).path)
        self._sender = HttpSender()

    @property
    def name(self) -> str:
        return f"webhook {self._host}"

    def send(self, notice: Notice) -> Answer:
        """Raises DeliveryError."""
        body = json.dumps(self._shape(notice, self._origin, notice_id(notice, self._origin))).encode()
        headers = {"Content-Type": "application/json", "User-Agent": f"pgbackup/{self._origin.version}"}
        if self._secret is not None and self._shape is generic:
            headers[SIGNATURE_HEADER] = f"sha256={hmac.new(self._secret, body, hashlib.sha256).hexdigest()}"
        return self._sender.post(self._url, body, headers)

    def close(self) -> None:
        self._sender.close()
