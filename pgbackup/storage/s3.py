"""Objects in a bucket of Amazon S3 or of a store that speaks its protocol.

What stores disagree about is settled here: whether ``If-None-Match`` and ``If-Match`` are obeyed, refused or ignored
(``conditional_put``), and what a 404 to a HEAD is about. The parts are beside this file: the client and its limits
(s3_client), bodies (s3_body), the meaning of answers (s3_errors), resumed reads (s3_read), multipart uploads
(s3_upload), listings and deletions (s3_listing). Nothing outside these files imports boto3.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace as changed
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from pgbackup.errors import ConfigError, DeleteRefused, ObjectMissing, StorageError, StoreDenied
from pgbackup.storage import s3_listing
from pgbackup.storage.base import ByteStream, ObjectInfo, UnfinishedUpload
from pgbackup.storage.s3_body import BODY_TYPE, as_body, checksum_of
from pgbackup.storage.s3_client import Bucket, S3Options
from pgbackup.storage.s3_errors import ConditionFailed, NotImplementedByStore
from pgbackup.storage.s3_read import ObjectChanged, ResumingReader
from pgbackup.storage.s3_upload import MIN_PART_BYTES, S3Upload, abort_upload

SMALL_BODY_BYTES = 128 << 10
"""Bodies up to here go out in one piece with the headers."""

PROOF_BYTES = 1 << 20
"""Only a body up to here is sent a second time to learn whether the store obeys a condition."""

GET_TRIES = 3


class S3Store:
    """An ObjectStore in one bucket, below one prefix."""

    def __init__(self, url: str, *, options: S3Options | None = None) -> None:
        name, prefix = split_url(url)
        self._prefix = f"{prefix}/" if prefix else ""
        self._bucket = Bucket(name, options or S3Options())
        self._client = self._bucket.client
        self.conditional_put: bool | None = True if self._bucket.on_aws else None
        """Whether a put with ``If-None-Match: *`` leaves an existing object alone; None: not known yet."""

    @property
    def url(self) -> str:
        return f"s3://{self._bucket.name}/{self._prefix}".rstrip("/")

    @property
    def checksum_mode(self) -> str:
        """When boto3 adds checksums of its own: ``when_required`` off AWS, where many stores refuse them."""
        return str(vars(self._client.meta.config).get("request_checksum_calculation", ""))

    @property
    def min_part_bytes(self) -> int:
        return MIN_PART_BYTES

    # -- writing ------------------------------------------------------------------------------------------------

    def put(self, key: str, data: bytes) -> None:
        self._put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See the port. A store that is not known to obey the condition is asked for the object first."""
        if self.conditional_put is not True and self.head(key) is not None:
            return False
        if self.conditional_put is False:
            self._put(key, data)
            return True
        try:
            self._put(key, data, IfNoneMatch="*")
        except ConditionFailed:
            self.conditional_put = True
            return False
        except NotImplementedByStore:
            self.conditional_put = False
            return self.put_if_absent(key, data)
        if self.conditional_put is None and len(data) <= PROOF_BYTES:
            self._learn(key, data)
        return True

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        """See the port. The etag is compared first, because a store may ignore ``If-Match``."""
        if not self._bucket.on_aws:
            there = self.head(key)
            if there is None or there.etag != etag:
                return False
        try:
            self._put(key, data, IfMatch=etag)
        except ConditionFailed:
            # Also the answer to our own second try, when the answer to the first was lost.
            return self._is_there(key, data)
        except ObjectMissing:
            return False
        except NotImplementedByStore:
            self._put(key, data)
        return True

    def delete(self, keys: Iterable[str]) -> None:
        try:
            s3_listing.delete_objects(self._bucket, (self._full(key) for key in keys))
        except DeleteRefused as refusal:
            refusal.keys = tuple(key.removeprefix(self._prefix) for key in refusal.keys)
            raise

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, key: str) -> bytes:
        return self.get_with_etag(key)[0]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        for _ in range(GET_TRIES):
            try:
                with closing(ResumingReader(self._bucket, self._full(key))) as reader:
                    return reader.read(), reader.etag
            except ObjectChanged as error:
                changed_again = error
        raise changed_again

    @contextmanager
    def open_read(self, key: str) -> Iterator[ByteStream]:
        with closing(ResumingReader(self._bucket, self._full(key))) as reader:
            yield reader

    def head(self, key: str) -> ObjectInfo | None:
        full = self._full(key)
        bucket = self._bucket
        try:
            answer: Any = bucket.call(
                "HeadObject", full, lambda: self._client.head_object(Bucket=bucket.name, Key=full)
            )
        except ObjectMissing:
            self._require_bucket()
            return None
        modified = answer["LastModified"].astimezone(UTC)
        return ObjectInfo(key, int(answer["ContentLength"]), modified, answer.get("ETag", ""))

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        after = self._prefix + start_after if start_after else ""
        for info in s3_listing.list_objects(self._bucket, self._prefix + prefix, after):
            yield self._relative(info)

    def list_level(self, prefix: str = "") -> tuple[Sequence[ObjectInfo], Sequence[str]]:
        objects, folders = s3_listing.list_level(self._bucket, self._prefix + prefix)
        cut = len(self._prefix)
        return [self._relative(info) for info in objects], [folder[cut:] for folder in folders]

    # -- multipart uploads --------------------------------------------------------------------------------------

    def start_upload(self, key: str) -> S3Upload:
        return S3Upload(self._bucket, self._full(key))

    def list_uploads(self, prefix: str = "") -> Sequence[UnfinishedUpload]:
        found = s3_listing.list_uploads(self._bucket, self._prefix + prefix)
        return [changed(upload, key=upload.key[len(self._prefix) :]) for upload in found]

    def abort_upload(self, key: str, upload_id: str) -> None:
        abort_upload(self._bucket, self._full(key), upload_id)

    # -- the store itself ---------------------------------------------------------------------------------------

    def clock(self) -> datetime | None:
        """The Date of an answer to HEAD bucket; a refusal has one too."""
        name = self._bucket.name

        def ask() -> Any:
            try:
                return self._client.head_bucket(Bucket=name)
            except ClientError as error:
                if error.response["ResponseMetadata"].get("HTTPStatusCode") == 403:
                    return error.response
                raise

        headers = self._bucket.call("HeadBucket", "", ask)["ResponseMetadata"].get("HTTPHeaders", {})
        try:
            return parsedate_to_datetime(headers["date"]).astimezone(UTC)
        except (KeyError, ValueError):
            return None

    def close(self) -> None:
        self._bucket.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def _put(self, key: str, data: bytes, **wanted: Any) -> None:
        full = self._full(key)
        if self._bucket.checksums:
            wanted |= checksum_of(data)
        else:
            # Every store knows this one. Without it, SeaweedFS makes an empty object of a request that breaks before
            # its body, and that object keeps the real one out.
            digest = hashlib.md5(data, usedforsecurity=False).digest()
            wanted["ContentMD5"] = base64.b64encode(digest).decode("ascii")

        def send() -> Any:
            body = data if len(data) <= SMALL_BODY_BYTES else as_body(data, over_tls=self._bucket.over_tls)
            return self._client.put_object(
                Bucket=self._bucket.name, Key=full, Body=body, ContentType=BODY_TYPE, **wanted
            )

        self._bucket.call("PutObject", full, send)

    def _learn(self, key: str, data: bytes) -> None:
        """Send again what was just stored: a store that takes it ignores the condition."""
        try:
            self._put(key, data, IfNoneMatch="*")
        except ConditionFailed:
            self.conditional_put = True
        except StorageError:
            return
        else:
            self.conditional_put = False

    def _is_there(self, key: str, data: bytes) -> bool:
        try:
            return self.get(key) == data
        except ObjectMissing:
            return False

    def _require_bucket(self) -> None:
        """A HEAD answers 404 for a missing bucket as well. Raises unless the bucket has ever answered."""
        if self._bucket.seen:
            return
        try:
            self._bucket.call("HeadBucket", "", lambda: self._client.head_bucket(Bucket=self._bucket.name))
        except StoreDenied:
            # It says no, so it is there; the requests that matter will tell what is allowed.
            self._bucket.seen = True

    def _full(self, key: str) -> str:
        if not key or key.startswith("/"):
            raise StorageError(f"not a key: {key!r}")
        return self._prefix + key

    def _relative(self, info: ObjectInfo) -> ObjectInfo:
        return changed(info, key=info.key[len(self._prefix) :])


def split_url(url: str) -> tuple[str, str]:
    """(bucket, prefix without slashes around it) of ``s3://bucket/prefix``. The URL is not repeated in errors."""
    scheme, mark, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not mark or not bucket or any(sign in bucket for sign in "@:?#"):
        raise ConfigError(
            "the repository URL names no bucket",
            hint="Write s3://bucket/prefix, and give credentials and endpoint by the AWS_ variables.",
        )
    return bucket, prefix.strip("/")
