"""One HTTP request with bounds: for webhooks and the heartbeat; the one place that imports httpx.

The address of a webhook is a secret (it holds the token), so no message of ours or of the library's shows more of it
than its host. Redirects are not followed: a token is sent where the operator said, nowhere else.
"""

from __future__ import annotations

import email.utils
import logging
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime

import httpx

from pgbackup.alerts.address import without_address
from pgbackup.alerts.base import Answer, DeliveryError
from pgbackup.alerts.cutoff import Cutoff

TOTAL_SECONDS = 30.0
_STEP_SECONDS = 10.0
_MOST_ANSWER_BYTES = 4096
_RETRYABLE = frozenset({408, 425, 429})
_SHOWN = re.compile(rb"(?=.*[A-Za-z])[\x20-\x7e]{1,120}")
_SYSTEMS_OWN = (httpx.NetworkError, httpx.ProxyError)


class HttpSender:
    """For one thread. Each request makes a connection: they are minutes or days apart, and an old one may be dead."""

    def __init__(self, *, total_seconds: float = TOTAL_SECONDS) -> None:
        # Its log lines show whole addresses.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        logging.getLogger("httpcore").setLevel(logging.WARNING)
        self._total_seconds = total_seconds
        self._client: httpx.Client | None = None

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send; any answer from 200 to 299 is a success. Raises DeliveryError."""
        with Cutoff(self._total_seconds) as cutoff:
            try:
                return self._request(url, body, headers, cutoff)
            except httpx.HTTPError as exc:
                # `from None`: what the library says may quote the address, and a traceback shows causes.
                raise self._failure(exc, url, late=cutoff.passed) from None
            except (httpx.InvalidURL, ValueError):
                raise DeliveryError("the address is not one", retryable=False) from None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _request(self, url: str, body: bytes, headers: Mapping[str, str], cutoff: Cutoff) -> Answer:
        if self._client is None:
            self._client = httpx.Client(
                timeout=httpx.Timeout(_STEP_SECONDS),
                follow_redirects=False,
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        extensions = {"trace": cutoff.trace}
        with self._client.stream("POST", url, content=body, headers=dict(headers), extensions=extensions) as response:
            return _answer(response, b"" if response.is_success else _beginning(response), url)

    def _failure(self, exc: httpx.HTTPError, url: str, *, late: bool) -> DeliveryError:
        if late:
            return DeliveryError(f"no whole answer within {self._total_seconds:.0f} s", retryable=True)
        if isinstance(exc, httpx.TimeoutException):
            return DeliveryError(f"no answer within {_STEP_SECONDS:.0f} s", retryable=True)
        if isinstance(exc, httpx.UnsupportedProtocol):
            return DeliveryError("the address is not one", retryable=False)
        # Other errors quote what the peer sent.
        text = f": {without_address(str(exc), url)}" if isinstance(exc, _SYSTEMS_OWN) and str(exc) else ""
        return DeliveryError(f"{type(exc).__name__}{text}", retryable=True)


def _beginning(response: httpx.Response) -> bytes:
    """A little of what the receiver says; a long answer is cut off."""
    found = b""
    for block in response.iter_raw():
        found += block[:_MOST_ANSWER_BYTES]
        if len(found) >= _MOST_ANSWER_BYTES:
            break
    return found


def _answer(response: httpx.Response, said: bytes, url: str) -> Answer:
    text = f"HTTP {response.status_code}"
    if response.is_success:
        return Answer(text)
    # Services say what is wrong in a word or a short JSON (`no_service`); a page is of no use here.
    if _SHOWN.fullmatch(said.strip()) and b"<" not in said:
        text += f": {without_address(said.decode().strip(), url)}"
    retryable = response.status_code in _RETRYABLE or response.status_code >= 500
    raise DeliveryError(text, retryable=retryable, retry_after=_retry_after(response.headers.get("Retry-After", "")))


def _retry_after(given: str) -> float | None:
    """Seconds, also with a fraction (Discord), or a date (RFC 9110, 10.2.3); None for anything else."""
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = (email.utils.parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
