"""The repository's URL: ``s3://bucket/prefix`` or ``file:///path``, with placeholders for who the cluster is.

``{system_identifier}`` and ``{pg_major}`` may stand in the path, so that one configuration serves many clusters. They
are filled in when the server has said who it is; a command without a server cannot use such a URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

PLACEHOLDERS = ("system_identifier", "pg_major")

_BUCKET = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$")
_BRACED = re.compile(r"\{([^{}]*)\}")
_USER_PART = re.compile(r"//[^/@]*@")


@dataclass(frozen=True, slots=True)
class RepositoryUrl:
    """A URL that was found to be well formed; ``str()`` gives it back without a slash at the end."""

    text: str

    @classmethod
    def parse(cls, text: str) -> RepositoryUrl:
        """Raises ValueError, which never quotes the URL: somebody may have written a password into it."""
        text = text.strip()
        scheme, mark, rest = text.partition("://")
        if not mark or scheme not in {"s3", "file"}:
            raise ValueError("expected s3://bucket/prefix or file:///path")
        _check_placeholders(rest)
        if any(sign in rest for sign in "?#") or any(ord(sign) < 33 for sign in rest):
            raise ValueError("a repository URL has no ?, #, space or control character in it")
        if scheme == "s3":
            _check_s3(rest)
        else:
            _check_file(rest)
        return cls(text.rstrip("/") if rest.strip("/") else text)

    @property
    def is_template(self) -> bool:
        """Whether the server has to be asked before this names a place."""
        return "{" in self.text

    def resolve(self, *, system_identifier: int, pg_major: int) -> str:
        """The URL of one cluster."""
        return self.text.replace("{system_identifier}", str(system_identifier)).replace("{pg_major}", str(pg_major))

    def __str__(self) -> str:
        return self.text


def redact_url(text: str) -> str:
    """For messages: without a user part, which may hold a password."""
    return _USER_PART.sub("//***@", text)


def _check_placeholders(rest: str) -> None:
    names = _BRACED.findall(rest)
    unknown = [name for name in names if name not in PLACEHOLDERS]
    if unknown or "{" in _BRACED.sub("", rest) or "}" in _BRACED.sub("", rest):
        raise ValueError("the placeholders are {system_identifier} and {pg_major}")


def _check_s3(rest: str) -> None:
    bucket, _, prefix = rest.partition("/")
    if "@" in bucket or ":" in bucket:
        raise ValueError("credentials and endpoint do not go into the URL: use AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL")
    if "{" in bucket:
        raise ValueError("placeholders go into the prefix, not into the bucket's name")
    if not _BUCKET.match(bucket):
        raise ValueError("the bucket's name has 3 to 255 letters, digits, dots, hyphens and underscores")
    if any(part in {"", ".", ".."} for part in prefix.rstrip("/").split("/")) and prefix.strip("/"):
        raise ValueError("the prefix has an empty part, or one that is . or ..")


def _check_file(rest: str) -> None:
    if not rest.startswith("/"):
        raise ValueError("a file URL has three slashes: file:///path")
    path = PurePosixPath(unquote(rest))
    if ".." in path.parts or path == PurePosixPath("/"):
        raise ValueError("the path of a file repository is absolute, has no .. and is not /")
