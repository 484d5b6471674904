"""The address of a webhook is a secret, for it holds the token: what of it may be shown, and how the rest is hidden."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

_SHORTEST_SECRET = 4
_UNWANTED = re.compile(r"[\x00-\x20\x7f-\x9f]")


def host_of(url: str) -> str:
    """The host of an address, which may be shown."""
    try:
        return urlsplit(url).hostname or "?"
    except ValueError:
        return "?"


def wrong_http(url: str) -> str:
    """What is wrong with an http or https address; empty when nothing is. Never shows it."""
    if _UNWANTED.search(url):
        return "there is a space or a control character in it"
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        host = (parts.hostname or "").encode("idna")
    except ValueError:
        fine = False
    return "" if fine and host else "it is not an http or https address"


def secret_parts(url: str) -> frozenset[str]:
    """Everything behind the host, in pieces as they are and as they are meant, and user and password."""
    try:
        parts = urlsplit(url)
        userinfo = parts.netloc.rpartition("@")[0]
        words = [parts.path, parts.query, parts.fragment, userinfo, *userinfo.split(":"), *parts.path.split("/")]
        words += [value for pair in parse_qsl(parts.query) for value in pair]
        words += parts.query.replace("=", "&").split("&")
    except ValueError:
        words = [url]
    return frozenset(word for text in words for word in (text, unquote(text)) if len(word) >= _SHORTEST_SECRET)


def without_address(text: str, url: str) -> str:
    """A library's text, or a receiver's, which may quote the address."""
    parts = sorted(secret_parts(url), key=len, reverse=True)
    return re.sub("|".join(map(re.escape, parts)), "...", text, flags=re.IGNORECASE) if parts else text
