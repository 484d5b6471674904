"""The table from S3's answers to our errors."""

from __future__ import annotations

import botocore.exceptions as boto
import pytest
from urllib3.exceptions import ProtocolError

from pgbackup.errors import ConfigError, DeleteRefused, ObjectMissing, StorageError, StoreDenied, StoreUnavailable
from pgbackup.storage.s3 import S3Store
from pgbackup.storage.s3_errors import (
    ConditionFailed,
    Conflict,
    NotImplementedByStore,
    Request,
    UploadGone,
    translate,
)

SECRET = "hunter2"
ENDPOINT = "https://store.example"


def answered(code: str, status: int, operation: str = "GetObject") -> StorageError:
    error = boto.ClientError(
        {"Error": {"Code": code, "Message": "text"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        operation,
    )
    return translate(error, Request(operation, "bkt", "prefix/key", ENDPOINT))


@pytest.mark.parametrize(
    ("code", "status", "operation", "kind", "words"),
    [
        ("NoSuchKey", 404, "GetObject", ObjectMissing, "s3://bkt/prefix/key"),
        ("404", 404, "HeadObject", ObjectMissing, "s3://bkt/prefix/key"),
        ("NoSuchBucket", 404, "PutObject", StorageError, "bucket bkt does not exist"),
        ("404", 404, "HeadBucket", StorageError, "bucket bkt does not exist"),
        ("NoSuchUpload", 404, "UploadPart", UploadGone, "UploadPart"),
        ("AccessDenied", 403, "PutObject", StoreDenied, "s3:PutObject"),
        ("403", 403, "HeadObject", StoreDenied, "s3:ListBucket"),
        ("AccessDenied", 403, "DeleteObjects", DeleteRefused, "s3:DeleteObject"),
        ("AccessDenied", 403, "DeleteObject", DeleteRefused, "s3:DeleteObject"),
        ("ObjectLocked", 400, "DeleteObject", DeleteRefused, "s3:DeleteObject"),
        ("403", 403, "DeleteObject", StoreDenied, "s3:DeleteObject"),
        ("AccessDenied", 403, "ListMultipartUploads", StoreDenied, "s3:ListBucketMultipartUploads"),
        ("AccessDenied", 403, "AbortMultipartUpload", StoreDenied, "s3:AbortMultipartUpload"),
        ("AllAccessDisabled", 403, "GetObject", StoreDenied, "AllAccessDisabled"),
        ("InvalidAccessKeyId", 403, "GetObject", StoreDenied, "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, "GetObject", StoreDenied, "AWS_SECRET_ACCESS_KEY"),
        ("ExpiredToken", 400, "GetObject", StoreDenied, "expired"),
        ("RequestTimeTooSkewed", 403, "GetObject", StoreDenied, "clock"),
        ("SlowDown", 503, "PutObject", StoreUnavailable, "not available"),
        ("SlowDown", 200, "CompleteMultipartUpload", StoreUnavailable, "not available"),
        ("InternalError", 200, "CompleteMultipartUpload", StoreUnavailable, "not available"),
        ("TooManyRequests", 429, "PutObject", StoreUnavailable, "not available"),
        ("502", 502, "HeadObject", StoreUnavailable, "not available"),
        ("XMinioStorageFull", 507, "PutObject", StoreUnavailable, "not available"),
        ("PreconditionFailed", 412, "PutObject", ConditionFailed, "PutObject"),
        ("412", 412, "HeadObject", ConditionFailed, "HeadObject"),
        ("ConditionalRequestConflict", 409, "PutObject", Conflict, "PutObject"),
        ("NotImplemented", 501, "PutObject", NotImplementedByStore, "not implemented"),
        ("NotImplemented", 400, "PutObject", NotImplementedByStore, "not implemented"),
        ("MethodNotAllowed", 405, "DeleteObjects", NotImplementedByStore, "not implemented"),
        ("PermanentRedirect", 301, "GetObject", StorageError, "AWS_REGION"),
        ("AuthorizationHeaderMalformed", 400, "GetObject", StorageError, "AWS_REGION"),
        ("InvalidObjectState", 403, "GetObject", StorageError, "cold storage"),
        ("EntityTooLarge", 400, "PutObject", StorageError, "EntityTooLarge (400): text"),
    ],
)
def test_answers(code: str, status: int, operation: str, kind: type[StorageError], words: str) -> None:
    error = answered(code, status, operation)
    assert type(error) is kind
    assert words in f"{error} {error.hint}"
    assert error.retryable is issubclass(kind, StoreUnavailable)


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (boto.NoCredentialsError(), StoreDenied, "AWS_ACCESS_KEY_ID"),
        (boto.PartialCredentialsError(provider="env", cred_var="x"), StoreDenied, "AWS_ACCESS_KEY_ID"),
        (boto.CredentialRetrievalError(provider="p", error_msg=SECRET), StoreDenied, "could not be obtained"),
        (boto.EndpointConnectionError(endpoint_url=f"http://u:{SECRET}@h/"), StoreUnavailable, "no answer"),
        (boto.ConnectTimeoutError(endpoint_url="http://h/"), StoreUnavailable, "no answer"),
        (boto.ReadTimeoutError(endpoint_url="http://h/"), StoreUnavailable, "no answer"),
        (boto.ConnectionClosedError(endpoint_url="http://h/"), StoreUnavailable, "no answer"),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), StoreUnavailable, "no answer"),
        (ProtocolError("broken"), StoreUnavailable, "no answer"),
        (ConnectionResetError("reset"), StoreUnavailable, "no answer"),
        (
            boto.SSLError(endpoint_url="https://h/", error=OSError("CERTIFICATE_VERIFY_FAILED")),
            StorageError,
            "AWS_CA_BUNDLE",
        ),
        (boto.SSLError(endpoint_url="https://h/", error=OSError("WRONG_VERSION_NUMBER")), StorageError, "http://"),
        (boto.SSLError(endpoint_url="https://h/", error=OSError("EOF occurred")), StoreUnavailable, "no answer"),
        (boto.ParamValidationError(report="bad bucket"), StorageError, "bad bucket"),
    ],
)
def test_no_answer(failure: Exception, kind: type[StorageError], words: str) -> None:
    error = translate(failure, Request("GetObject", "bkt", "k", ENDPOINT))
    assert type(error) is kind
    assert words in f"{error} {error.hint}"
    assert SECRET not in f"{error} {error.hint}"


def test_a_file_of_authorities_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 would take it for a store that does not answer, and try again."""
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such/file.pem")
    with pytest.raises(ConfigError, match=r"/no/such/file\.pem cannot be read: No such file"):
        S3Store("s3://bucket/prefix")
