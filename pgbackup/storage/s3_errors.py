"""What an answer of an S3 store means: one table from its codes to our errors.

The code in the answer decides, then the HTTP status; HEAD answers have no body, so for them the status is the code.
Three answers that callers act upon have a class of their own here: a condition that did not hold, a conflict with a
request under way, and a request that the store does not implement. They never leave ``pgbackup.storage``.

Messages carry the store's code and text, never a key id, a signature or the user part of a URL.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Any

import botocore.exceptions as boto
import urllib3.exceptions

from pgbackup.errors import DeleteRefused, ObjectMissing, StorageError, StoreDenied, StoreUnavailable

FOREIGN_ERRORS = (boto.ClientError, boto.BotoCoreError, urllib3.exceptions.HTTPError, OSError)
"""What may come out of a call to boto3, or out of reading a body that it returned."""


class ConditionFailed(StorageError):
    """If-None-Match or If-Match did not hold: another object, or another version, is there."""


class Conflict(StoreUnavailable):
    """Another request on the same key was under way; the same request may be sent again."""


class NotImplementedByStore(StorageError):
    """The store does not know this request, or this header of it."""


class UploadGone(StorageError):
    """The multipart upload was completed or aborted."""


@dataclass(frozen=True, slots=True)
class Request:
    """The call that failed, as far as a message names it; ``key`` is the full key, or a prefix, or empty."""

    operation: str
    bucket: str
    key: str
    endpoint: str

    @property
    def what(self) -> str:
        place = f"s3://{self.bucket}/{self.key}" if self.key else f"bucket {self.bucket}"
        return f"{self.operation} of {place}"


_PERMISSIONS = {
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
}

_CREDENTIAL_HINTS = {
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID: the store does not know this key.",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY and AWS_REGION: the store computes another signature.",
    "ExpiredToken": "renew the session token: the credentials have expired.",
    "TokenRefreshRequired": "renew the session token: the credentials have expired.",
    "InvalidToken": "check AWS_SESSION_TOKEN: the store does not accept it.",
    "RequestTimeTooSkewed": "set this machine's clock: it differs too much from the store's.",
}

_UNAVAILABLE = frozenset(
    "InternalError OperationAborted RequestTimeout ServiceUnavailable SlowDown Throttling ThrottlingException"
    " TooManyRequests TooManyRequestsException RequestLimitExceeded BandwidthLimitExceeded XMinioStorageFull".split()
)
_NOT_IMPLEMENTED = frozenset(
    "NotImplemented MethodNotAllowed UnsupportedOperation MissingContentMD5 A_header_not_implemented".split()
)
_WRONG_REGION = frozenset("PermanentRedirect AuthorizationHeaderMalformed IllegalLocationConstraintException".split())

_NO_ANSWER = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    urllib3.exceptions.HTTPError,
    OSError,
)

_KEPT = frozenset("AccessDenied ObjectLocked ObjectLockedByBucketPolicy FileImmutable".split())
"""What stores say of an object that a lock, a policy or a missing permission keeps from being deleted."""

_USER_PART = re.compile(r"//[^/@\s]+@")


def translate(error: Exception, request: Request) -> StorageError:
    """Our error for ``error``; the caller raises it from the original."""
    if isinstance(error, boto.ClientError):
        return _from_answer(error, request)
    return _from_failure(error, request)


def from_code(code: str, text: str, status: int, request: Request) -> StorageError:
    """Our error for a code and text of the store, from an answer's body or from inside a DeleteObjects answer."""
    detail = redact(f"{code} ({status}): {text}" if status else f"{code}: {text}")
    if code == "NoSuchBucket" or (status == 404 and request.operation in ("HeadBucket", "ListObjectsV2")):
        return StorageError(
            f"bucket {request.bucket} does not exist at {request.endpoint}",
            detail=detail,
            hint="Create the bucket, or correct the bucket's name and AWS_ENDPOINT_URL.",
        )
    if code in _CREDENTIAL_HINTS:
        return StoreDenied(f"{request.what} was refused", detail=detail, hint=_CREDENTIAL_HINTS[code])
    if code == "NoSuchUpload":
        return UploadGone(f"{request.what} failed", detail=detail)
    if code == "PreconditionFailed" or status == 412:
        return ConditionFailed(f"{request.what} found another version", detail=detail)
    if code == "ConditionalRequestConflict" or (status == 409 and code in ("409", "Conflict", "OperationAborted")):
        return Conflict(f"{request.what} met another request on the same key", detail=detail)
    if code in _NOT_IMPLEMENTED or status in (405, 501):
        return NotImplementedByStore(f"{request.what} is not implemented by the store", detail=detail)
    if code in _WRONG_REGION or status in (301, 307, 308):
        return StorageError(
            f"bucket {request.bucket} is in another region", detail=detail, hint="Set AWS_REGION to the bucket's."
        )
    if code == "NoSuchKey" or status == 404:
        return ObjectMissing(f"object s3://{request.bucket}/{request.key} does not exist", detail=detail)
    if code in _UNAVAILABLE or status == 429 or status >= 500:
        return StoreUnavailable(f"{request.what} failed: the store is not available", detail=detail)
    if code == "InvalidObjectState":
        return StorageError(f"{request.what} failed", detail=detail, hint="The object must first leave cold storage.")
    if code in _KEPT or status in (401, 403):
        return _denied(request, detail, is_kept=code in _KEPT)
    # AWS answers 400 without a word to a HEAD with an expired token.
    hint = "check that the credentials have not expired." if request.operation.startswith("Head") else ""
    return StorageError(f"{request.what} failed", detail=detail, hint=hint)


def redact(text: str) -> str:
    """The text without user names and passwords of URLs."""
    return _USER_PART.sub("//", text)


def _from_answer(error: boto.ClientError, request: Request) -> StorageError:
    answer: Any = error.response
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    fault = answer.get("Error", {})
    return from_code(str(fault.get("Code", "")), str(fault.get("Message", "")).rstrip("."), status, request)


def _denied(request: Request, detail: str, *, is_kept: bool) -> StoreDenied:
    permission = _PERMISSIONS.get(request.operation, "this operation")
    hint = f"Give these credentials {permission} on bucket {request.bucket}."
    if request.operation in ("GetObject", "HeadObject"):
        # AWS answers 403 for a key that does not exist to whoever may not list.
        hint = f"Give these credentials {permission} and s3:ListBucket on bucket {request.bucket}."
    message = f"{request.what} was refused: it needs {permission}"
    if is_kept and request.operation in ("DeleteObject", "DeleteObjects"):
        keys = (request.key,) if request.key else ()
        return DeleteRefused(message, keys=keys, detail=detail, hint=hint)
    return StoreDenied(message, detail=detail, hint=hint)


def _from_failure(error: Exception, request: Request) -> StorageError:
    """No answer at all, or none that boto3 understood."""
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return StoreDenied(
            f"no credentials for bucket {request.bucket}",
            hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role.",
        )
    if isinstance(error, boto.CredentialRetrievalError | boto.TokenRetrievalError | boto.UnauthorizedSSOTokenError):
        # Their text can quote the output of a credential program: leave it out.
        return StoreDenied(
            f"credentials for bucket {request.bucket} could not be obtained",
            detail=type(error).__name__,
            hint="Check the profile, role or program that AWS_PROFILE names, or set AWS_ACCESS_KEY_ID.",
        )
    text = redact(str(error))
    if "CERTIFICATE_VERIFY_FAILED" in text or isinstance(error, ssl.SSLCertVerificationError):
        return StorageError(
            f"the certificate of {request.endpoint} is not trusted",
            detail=text,
            hint="Set AWS_CA_BUNDLE to the file with the certificate of its authority.",
        )
    if "WRONG_VERSION_NUMBER" in text:
        return StorageError(
            f"{request.endpoint} does not speak TLS", detail=text, hint="Write http:// in AWS_ENDPOINT_URL."
        )
    if isinstance(error, _NO_ANSWER):
        return StoreUnavailable(
            f"{request.what} failed: no answer from {request.endpoint}",
            detail=text,
            hint="Check the network, AWS_ENDPOINT_URL and whether the store runs.",
        )
    if type(error).__name__ == "ResponseParserError":
        return StorageError(
            f"the answer of {request.endpoint} is not S3", detail=text[:200], hint="Check AWS_ENDPOINT_URL."
        )
    return StorageError(f"{request.what} failed", detail=text)
