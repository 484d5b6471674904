"""One S3 object sent in parts.

``complete`` must not replace what another writer put there, and must not take an answer that got lost for another
writer's object. So it asks with ``If-None-Match``, looks before on stores that may ignore it there, and looks after:
an object whose etag is that of our parts is ours. (The etag of a multipart object is the MD5 of its parts' etags;
where a store encrypts with its own keys it is something else, and then a lost answer is reported as another object.)

When another object won, the upload is aborted at once.
"""

from __future__ import annotations

import binascii
import hashlib
import logging
import threading
from typing import TYPE_CHECKING, Any

from pgbackup.errors import ObjectMissing, StorageError, StoreUnavailable
from pgbackup.logs import log_fields
from pgbackup.storage.s3_body import CHECKSUM, as_body, checksum_of
from pgbackup.storage.s3_errors import ConditionFailed, Conflict, NotImplementedByStore, UploadGone

if TYPE_CHECKING:
    from pgbackup.storage.s3_client import Bucket

logger = logging.getLogger(__name__)

MIN_PART_BYTES = 5 << 20
MAX_PARTS = 10_000


class S3Upload:
    """A multipart upload begun by this process; parts may come from several threads."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket = bucket
        self._key = key
        self._lock = threading.Lock()
        self._parts: dict[int, dict[str, Any]] = {}
        # An upload that begins with an algorithm wants it with every part, and all of them back at the end.
        algorithm: Any = {"ChecksumAlgorithm": CHECKSUM} if bucket.checksums else {}

        def send() -> Any:
            return bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key, **algorithm)

        self._upload_id: str = bucket.call("CreateMultipartUpload", key, send)["UploadId"]

    @property
    def upload_id(self) -> str:
        return self._upload_id

    def put_part(self, number: int, data: bytes) -> None:
        if not 1 <= number <= MAX_PARTS:
            raise StorageError(f"part {number} of s3://{self._bucket.name}/{self._key} is outside 1 to {MAX_PARTS}")
        checksum = checksum_of(data) if self._bucket.checksums else {}

        def send() -> Any:
            body = as_body(data, over_tls=self._bucket.over_tls)
            return self._bucket.client.upload_part(
                **self._where(), UploadId=self._upload_id, PartNumber=number, Body=body, **checksum
            )

        answer = self._bucket.call("UploadPart", self._key, send)
        part = {name: answer[name] for name in ("ETag", f"Checksum{CHECKSUM}") if name in answer}
        with self._lock:
            self._parts[number] = {"PartNumber": number, **part}

    def complete(self) -> bool:
        there = None if self._bucket.on_aws else self._etag_there()
        if there is not None:
            return self._settle(there)
        try:
            answer = self._complete(IfNoneMatch="*")
        except NotImplementedByStore:
            answer = self._complete()
        except (ConditionFailed, Conflict, UploadGone) as error:
            there = self._etag_there()
            if there is not None:
                return self._settle(there)
            if isinstance(error, UploadGone):
                raise
            raise StoreUnavailable(
                f"s3://{self._bucket.name}/{self._key} was not completed", detail=str(error)
            ) from error
        # Stores that check the condition without a lock (SeaweedFS) can let two writers through; the second wins.
        there = self._etag_there()
        if there is None:
            raise StoreUnavailable(f"s3://{self._bucket.name}/{self._key} is not there after its upload was completed")
        return self._same(there, answer.get("ETag", "")) or self._settle(there)

    def abort(self) -> None:
        abort_upload(self._bucket, self._key, self._upload_id)

    def _complete(self, **condition: Any) -> Any:
        parts: Any = self._in_order()

        def send() -> Any:
            return self._bucket.client.complete_multipart_upload(
                **self._where(), UploadId=self._upload_id, MultipartUpload={"Parts": parts}, **condition
            )

        return self._bucket.call("CompleteMultipartUpload", self._key, send)

    def _settle(self, there: str) -> bool:
        """Whether the object that is there is ours; another writer's makes our parts useless."""
        expected = self._expected_etag()
        if self._same(there, expected):
            return True
        facts = log_fields(object=self._key, etag=there, expected=expected or None)
        logger.warning("the object that is there has another ETag than the upload", extra=facts)
        try:
            self.abort()
        except StorageError as error:
            # The verdict stands; the parts are a leftover that list_uploads shows.
            logger.warning("could not abort an upload that lost", extra=log_fields(object=self._key, error=error))
        return False

    def _etag_there(self) -> str | None:
        try:
            answer = self._bucket.call(
                "HeadObject", self._key, lambda: self._bucket.client.head_object(**self._where())
            )
        except ObjectMissing:
            return None
        return answer.get("ETag", "")

    def _expected_etag(self) -> str:
        etags = [part["ETag"].strip('"') for part in self._in_order()]
        try:
            digest = hashlib.md5(b"".join(binascii.unhexlify(etag) for etag in etags), usedforsecurity=False)
        except binascii.Error:
            return ""
        return f"{digest.hexdigest()}-{len(etags)}"

    def _in_order(self) -> list[dict[str, Any]]:
        with self._lock:
            return [part for _, part in sorted(self._parts.items())]

    def _where(self) -> Any:
        return {"Bucket": self._bucket.name, "Key": self._key}

    @staticmethod
    def _same(one: str, other: str) -> bool:
        return bool(one) and one.strip('"') == other.strip('"')


def abort_upload(bucket: Bucket, key: str, upload_id: str) -> None:
    """Forget an upload of any process; one that is gone already is no error."""

    def send() -> Any:
        return bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=key, UploadId=upload_id)

    try:
        bucket.call("AbortMultipartUpload", key, send)
    except (UploadGone, ObjectMissing):
        pass
