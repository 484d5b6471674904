"""How an S3 store is reached, where WAL-G's or WAL-E's variables say it and boto3's own do not.

boto3 knows neither ``AWS_ENDPOINT`` nor ``WALE_S3_ENDPOINT``; what they mean is handed to its client as plain values.
Credentials are not among them: an endpoint with a user in it is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

_WALE_ENDPOINT = re.compile(r"^(?P<scheme>https?)\+(?P<style>path|virtualhost|subdomain)://(?P<rest>.*)$", re.DOTALL)
Addressing = Literal["path", "virtual", "auto"]


@dataclass(frozen=True, slots=True)
class StoreConnection:
    """What boto3 is told besides its own variables; None leaves it to boto3, and ``addressing`` to the store's kind.

    ``addressing``: the bucket in the path, in the host's name, or as fits the host. ``ca_file``: an authority's
    certificates.
    """

    endpoint: str | None = None
    addressing: Addressing | None = None
    ca_file: str | None = None


def parse_endpoint(text: str) -> str:
    """``AWS_ENDPOINT``; without a scheme it is https, as for WAL-G. Raises ValueError, which never quotes it."""
    url = text.strip() if "://" in text else f"https://{text.strip()}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("expected http://host:port or https://host:port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or (port is not None and port < 1):
        raise ValueError("expected http://host:port or https://host:port")
    if "@" in parts.netloc:
        raise ValueError("credentials do not go into the endpoint: use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if parts.query or parts.fragment or any(ord(sign) < 33 for sign in url):
        raise ValueError("an endpoint has no ?, #, space or control character in it")
    return url.rstrip("/")


def parse_wale_endpoint(text: str) -> StoreConnection:
    """``http[s]+{path|virtualhost|subdomain}://host:port`` (WAL-E's WALE_S3_ENDPOINT). Raises ValueError.

    boto3 has one style for a bucket in the host's name, so ``virtualhost`` and ``subdomain`` are the same.
    """
    match = _WALE_ENDPOINT.match(text.strip())
    if match is None:
        raise ValueError("expected http[s]+{path|virtualhost|subdomain}://host:port, as WAL-E reads it")
    endpoint = parse_endpoint(f"{match['scheme']}://{match['rest']}")
    return StoreConnection(endpoint, "path" if match["style"] == "path" else "virtual")
