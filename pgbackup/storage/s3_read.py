"""Reading one S3 object as a stream that survives broken connections.

The first answer says how long the object is and which version it is. When the connection breaks, or ends early, the
rest of that version is asked for; only the last byte of it is an end. Breaks with hardly any progress between them
are counted, and after a few of them the reader gives up: retrying for ever is the caller's decision.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pgbackup.errors import StorageError
from pgbackup.storage.s3_client import Bucket, pause
from pgbackup.storage.s3_errors import FOREIGN_ERRORS, ConditionFailed, Request, translate

if TYPE_CHECKING:
    from botocore.response import StreamingBody

BREAKS_WITHOUT_PROGRESS = 4
PROGRESS_BYTES = 256 << 10
"""What must come between two breaks for the earlier ones to be forgotten."""

READ_BYTES = 1 << 20
"""The most that is asked of the connection at once: what a break in the middle of it throws away."""

_CONTENT_RANGE = re.compile(r"^bytes ([0-9]{1,20})-[0-9]{1,20}/([0-9]{1,20}|\*)$")


class ObjectChanged(StorageError):
    """The object was replaced while it was read; only our mutable bookkeeping ever is."""


class ResumingReader:
    """A ByteStream over one version of one object. Not for several threads."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket = bucket
        self._key = key
        self._request = Request("GetObject", bucket.name, key, bucket.endpoint)
        self._position = 0
        self._breaks = 0
        self._broke_at = 0
        answer = self._ask()
        self.etag: str = answer.get("ETag", "")
        self.size_bytes = int(answer["ContentLength"])
        self._body: StreamingBody | None = answer["Body"]

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(READ_BYTES), b""))
        while size and self._position < self.size_bytes:
            data = self._read_some(min(size, READ_BYTES, self.size_bytes - self._position))
            if data:
                self._position += len(data)
                break
            self._resume()
        else:
            data = b""
        if self._position == self.size_bytes:
            self._finish()
        return data

    def close(self) -> None:
        """Give the connection back; one that still has bytes to send is closed."""
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def _read_some(self, size: int) -> bytes:
        """Up to ``size`` bytes; ``b""`` when the connection broke, which is counted."""
        if self._body is None:
            return b""
        try:
            data: bytes = self._body.read(size)
            if data:
                return data
            raise ConnectionError(f"the connection ended after {self._position} of {self.size_bytes} bytes")
        except FOREIGN_ERRORS as error:
            if self._position - self._broke_at >= PROGRESS_BYTES:
                self._breaks = 0
            self._broke_at = self._position
            self._breaks += 1
            if self._breaks > BREAKS_WITHOUT_PROGRESS:
                self.close()
                raise translate(error, self._request) from error
            return b""

    def _finish(self) -> None:
        """Let the connection be used again by reading the answer's end; nothing that happens here matters."""
        try:
            if self._body is not None:
                self._body.read(1)
        except FOREIGN_ERRORS:
            pass
        self.close()

    def _resume(self) -> None:
        """Ask for the rest of the version that was begun."""
        self.close()
        pause(self._breaks)
        first = self._position
        wanted = {"Range": f"bytes={first}-"}
        if self.etag:
            wanted["IfMatch"] = self.etag
        try:
            answer = self._ask(**wanted)
        except ConditionFailed as error:
            raise ObjectChanged(
                f"object s3://{self._bucket.name}/{self._key} changed while it was read", detail=str(error)
            ) from error
        self._body = answer["Body"]
        found = _CONTENT_RANGE.match(answer.get("ContentRange", ""))
        if found is None or int(found[1]) != first or found[2] not in ("*", str(self.size_bytes)):
            self.close()
            raise StorageError(
                f"{self._request.what} cannot be resumed",
                detail=f"asked for bytes {first} to {self.size_bytes}, got {answer.get('ContentRange', 'everything')}",
            )

    def _ask(self, **wanted: Any) -> Any:
        bucket, key = self._bucket, self._key
        return bucket.call("GetObject", key, lambda: bucket.client.get_object(Bucket=bucket.name, Key=key, **wanted))
