"""One HTTP request with bounds: for webhooks and the heartbeat; the one place that imports httpx.

The address of a webhook is a secret (it holds the token), so no message of ours or of the library's shows more of it
than its host. Redirects are not followed: a token is sent where the operator said, nowhere else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from pgbackup.alerts.base import Answer, DeliveryError

TOTAL_SECONDS = 30.0
_STEP_SECONDS = 10.0
_MOST_ANSWER_BYTES = 4096
_RETRYABLE = frozenset({408, 425, 429})


class HttpSender:
    """A connection that is kept for the next request. For one thread."""

    def __init__(self) -> None:
        # Its log lines show whole addresses.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        logging.getLogger("httpcore").setLevel(logging.WARNING)
        self._client: httpx.Client | None = None

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send; any answer from 200 to 299 is a success. Raises DeliveryError."""
        return self._request("POST", url, body, headers)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _request(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        if self._client is None:
            self._client = httpx.Client(timeout=httpx.Timeout(_STEP_SECONDS), follow_redirects=False)
        deadline = time.monotonic() + TOTAL_SECONDS
        try:
            with self._client.stream(method, url, content=body, headers=dict(headers)) as response:
                _read_some(response, deadline)
                return _answer(response)
        except httpx.TimeoutException as exc:
            raise DeliveryError(f"no answer within {_STEP_SECONDS:.0f} s", retryable=True) from exc
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            raise DeliveryError("the address is not one", retryable=False) from exc
        except httpx.HTTPError as exc:
            raise DeliveryError(f"{type(exc).__name__}: {_without_address(str(exc), url)}", retryable=True) from exc


def host_of(url: str) -> str:
    """The host of an address, which may be shown."""
    try:
        return urlsplit(url).hostname or "?"
    except ValueError:
        return "?"


def _read_some(response: httpx.Response, deadline: float) -> None:
    """Read a little of the answer, so that the connection can be used again; a large or slow one is cut off."""
    size = 0
    for block in response.iter_raw():
        size += len(block)
        if size > _MOST_ANSWER_BYTES:
            return
        if time.monotonic() > deadline:
            raise DeliveryError(f"no whole answer within {TOTAL_SECONDS:.0f} s", retryable=True)


def _answer(response: httpx.Response) -> Answer:
    text = f"HTTP {response.status_code}"
    if response.is_success:
        return Answer(text)
    retryable = response.status_code in _RETRYABLE or response.status_code >= 500
    raise DeliveryError(text, retryable=retryable, retry_after=_retry_after(response))


def _retry_after(response: httpx.Response) -> float | None:
    given = response.headers.get("Retry-After", "")
    return float(given) if given.isdecimal() and len(given) < 7 else None


def _without_address(text: str, url: str) -> str:
    """What a library says may quote the address."""
    path = urlsplit(url).path
    return text.replace(url, host_of(url)).replace(path, "/...") if len(path) > 1 else text.replace(url, host_of(url))
