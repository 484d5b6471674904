"""What S3 stores disagree about, and answers that get lost: a gateway in front of a real server makes them up."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pgbackup.engines.check.report import CheckReport
from pgbackup.engines.check.store import check_objects
from pgbackup.errors import StorageError, StoreDenied, StoreUnavailable
from pgbackup.logs import fields_of
from pgbackup.storage.s3 import PROOF_BYTES, S3Store
from pgbackup.storage.s3_body import BODY_TYPE
from pgbackup.storage.s3_upload import MIN_PART_BYTES
from tests.fix_proxy import Gateway
from tests.fix_store import S3Server, open_s3


@pytest.fixture
def store(s3_server: S3Server, s3_gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store that is reached through the gateway."""
    return open_s3(s3_server.through(s3_gateway.port), monkeypatch)


def trusted(store: S3Store) -> bool | None:
    return store.conditional_put


# -- conditions ---------------------------------------------------------------------------------------------------


def test_a_store_that_obeys_is_soon_trusted(store: S3Store, s3_gateway: Gateway) -> None:
    assert trusted(store) is None
    assert store.put_if_absent("first", b"x")
    assert trusted(store) is True
    s3_gateway.requests.clear()
    assert store.put_if_absent("second", b"x")
    assert [line.split("?")[0].split("/")[0] for line in s3_gateway.requests] == ["PUT "]


def test_a_large_first_object_is_not_sent_twice(store: S3Store, s3_gateway: Gateway) -> None:
    assert store.put_if_absent("first", bytes(PROOF_BYTES + 1))
    assert trusted(store) is None
    assert [line.split()[0] for line in s3_gateway.requests if "first" in line] == ["HEAD", "PUT"]


def test_a_store_that_ignores_the_condition_is_found_out(store: S3Store, s3_gateway: Gateway) -> None:
    s3_gateway.deaf = True
    assert store.put_if_absent("k", b"one") is True
    assert trusted(store) is False
    assert store.put_if_absent("k", b"two") is False
    assert store.put_if_absent("l", b"three") is True
    assert store.get("k") == b"one"
    assert store.get("l") == b"three"


def test_bodies_have_a_type_and_are_not_guessed_at(store: S3Store, s3_gateway: Gateway) -> None:
    """Where a part has none, SeaweedFS looks at its beginning and may compress what is compressed."""
    typed = s3_gateway.answer("PUT", f"Content-Type: {BODY_TYPE}", 503, "SlowDown", times=2)
    store.put("k", b"one")
    assert typed.seen == 2, "a PUT of ours without the type, or one that was not repeated"
    typed.times = 1
    upload = store.start_upload("l")
    upload.put_part(1, b"two")
    assert typed.seen == 3
    assert upload.complete()
    assert store.get("l") == b"two"


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "NotImplemented")])
def test_a_store_that_refuses_the_condition(store: S3Store, s3_gateway: Gateway, status: int, code: str) -> None:
    s3_gateway.answer("PUT", "If-None-Match", status, code, times=100)
    assert store.put_if_absent("k", b"one") is True
    assert trusted(store) is False
    assert store.put_if_absent("k", b"two") is False
    assert store.get("k") == b"one"


def test_replace_without_if_match(store: S3Store, s3_gateway: Gateway) -> None:
    s3_gateway.answer("PUT", "If-Match", 501, "NotImplemented", times=100)
    store.put("k", b"one")
    etag = store.get_with_etag("k")[1]
    assert store.replace("k", b"two", etag) is True
    assert store.replace("k", b"three", etag) is False
    assert store.get("k") == b"two"


def test_two_requests_on_one_key(store: S3Store, s3_gateway: Gateway) -> None:
    store.put("warm", b"")
    answer = s3_gateway.answer("PUT", "/k", 409, "ConditionalRequestConflict", times=3)
    assert store.put_if_absent("k", b"one") is True
    assert answer.seen == 3
    answer.times = 100
    with pytest.raises(StoreUnavailable):
        store.put_if_absent("k", b"one")
    assert answer.seen < 15


def test_a_store_whose_etags_are_not_stable(
    store: S3Store, s3_gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """`rclone serve s3` is one: it cannot be told from one where another writer has won, but it can be named."""
    s3_gateway.varies = True
    report = CheckReport()
    check_objects(report, store)
    bad = {line.name: line for line in report.lines if line.status == "failure"}
    assert list(bad) == ["multipart upload"], report.lines
    assert "another ETag than that of the upload which made it" in bad["multipart upload"].text
    (facts,) = (fields_of(record) for record in caplog.records if "another ETag" in record.message)
    assert facts["etag"] == '"another"'
    assert str(facts["expected"]).endswith("-2")


# -- lost answers -------------------------------------------------------------------------------------------------


def test_our_own_object_after_a_lost_answer_is_an_existing_one(store: S3Store, s3_gateway: Gateway) -> None:
    """The caller compares: that is the contract."""
    assert store.put_if_absent("warm", b"")
    answer = s3_gateway.answer("PUT", "/k", forwarded=True)
    assert store.put_if_absent("k", b"ours") is False
    assert answer.seen == 1
    assert store.get("k") == b"ours"


def test_a_replacement_after_a_lost_answer_is_ours(store: S3Store, s3_gateway: Gateway) -> None:
    store.put("k", b"one")
    etag = store.get_with_etag("k")[1]
    answer = s3_gateway.answer("PUT", "/k", forwarded=True)
    assert store.replace("k", b"two", etag) is True
    assert answer.seen == 1
    assert store.get("k") == b"two"


@pytest.mark.parametrize("times", [1, 100])
def test_an_upload_whose_completion_was_lost(store: S3Store, s3_gateway: Gateway, times: int) -> None:
    upload = store.start_upload("k")
    upload.put_part(1, bytes(MIN_PART_BYTES))
    upload.put_part(2, b"end")
    answer = s3_gateway.answer("POST", "uploadId=", forwarded=True, times=times)
    if times == 1:
        assert upload.complete() is True
    else:
        with pytest.raises(StoreUnavailable):
            upload.complete()
        answer.times = 0
        assert upload.complete() is True
    assert store.get("k") == bytes(MIN_PART_BYTES) + b"end"
    # Whoever gives up after a lost answer aborts: that must not touch the object.
    upload.abort()
    time.sleep(0.5)
    assert store.get("k") == bytes(MIN_PART_BYTES) + b"end"


def test_an_error_inside_a_success(store: S3Store, s3_gateway: Gateway) -> None:
    upload = store.start_upload("k")
    upload.put_part(1, b"x")
    answer = s3_gateway.answer("POST", "uploadId=", 200, "InternalError", times=100)
    with pytest.raises(StoreUnavailable, match="InternalError"):
        upload.complete()
    assert answer.seen == 4
    assert store.head("k") is None
    answer.times = 0
    assert upload.complete() is True


@pytest.mark.parametrize("body", ["<html>login first</html>", "<a/>"])
def test_a_completion_that_did_nothing(store: S3Store, s3_gateway: Gateway, body: str) -> None:
    upload = store.start_upload("k")
    upload.put_part(1, b"x")
    s3_gateway.answer("POST", "uploadId=", 200, body, times=100)
    with pytest.raises(StorageError):
        upload.complete()


def test_of_two_uploads_one_wins(store: S3Store) -> None:
    """SeaweedFS lets both through now and then; whoever was overwritten must not think that it is there."""
    for round_ in range(5):
        uploads = [store.start_upload(f"k{round_}") for _ in range(4)]
        for number, upload in enumerate(uploads):
            upload.put_part(1, b"%d" % number)
        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(lambda upload: upload.complete(), uploads))
        winner = int(store.get(f"k{round_}"))
        assert outcomes[winner] is True


# -- throttling, refusals -----------------------------------------------------------------------------------------

CALLS: dict[str, tuple[str, Callable[[S3Store], object]]] = {
    "PutObject": ("PUT", lambda store: store.put("k", b"x")),
    "GetObject": ("GET", lambda store: store.get("k")),
    "ListObjectsV2": ("GET", lambda store: list(store.list())),
    "HeadObject": ("HEAD", lambda store: store.head("k")),
    "DeleteObjects": ("POST", lambda store: store.delete(["k", "l"])),
    "CreateMultipartUpload": ("POST", lambda store: store.start_upload("k")),
    "ListMultipartUploads": ("GET", lambda store: store.list_uploads()),
}


@pytest.mark.parametrize(
    ("operation", "status", "code"),
    [
        *((operation, 503, "SlowDown") for operation in CALLS),
        ("PutObject", 500, "InternalError"),
        ("PutObject", 429, "TooManyRequests"),
        ("PutObject", 502, "<html>bad gateway</html>"),
    ],
)
def test_throttling_passes_or_is_told(
    store: S3Store, s3_gateway: Gateway, operation: str, status: int, code: str
) -> None:
    method, call = CALLS[operation]
    store.put("k", b"x")
    answer = s3_gateway.answer(method, "/", status, code, times=2)
    call(store)
    assert answer.seen == 2
    answer.times, answer.seen = 100, 0
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        call(store)
    assert answer.seen <= 4
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("operation", CALLS)
def test_a_refusal_is_not_repeated(store: S3Store, s3_gateway: Gateway, operation: str) -> None:
    method, call = CALLS[operation]
    store.put("k", b"x")
    answer = s3_gateway.answer(method, "/", 403, "AccessDenied", times=100)
    with pytest.raises(StoreDenied):
        call(store)
    assert answer.seen == 1


def test_something_that_is_not_s3(store: S3Store, s3_gateway: Gateway) -> None:
    s3_gateway.answer("GET", "list-type", 200, "<html><p>sign in</html>", times=100)
    with pytest.raises(StorageError):
        list(store.list())


# -- deletion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["NotImplemented", "MethodNotAllowed", "MissingContentMD5"])
def test_a_store_without_batches(store: S3Store, s3_gateway: Gateway, code: str) -> None:
    for key in ("a", "b", "c"):
        store.put(key, b"")
    s3_gateway.answer("POST", "delete", 400, code, times=100)
    store.delete(["a", "none", "b"])
    assert [info.key for info in store.list()] == ["c"]


@pytest.mark.parametrize(
    ("code", "kind"), [("AccessDenied", StoreDenied), ("InternalError", StoreUnavailable), ("NoSuchKey", None)]
)
def test_an_error_of_one_key_in_a_batch(
    store: S3Store, s3_gateway: Gateway, code: str, kind: type[StorageError] | None
) -> None:
    body = f"<DeleteResult><Error><Key>p/one</Key><Code>{code}</Code><Message>no</Message></Error></DeleteResult>"
    s3_gateway.answer("POST", "delete", 200, body)
    if kind is None:
        store.delete(["one", "two"])
        return
    with pytest.raises(kind, match="p/one"):
        store.delete(["one", "two"])


# -- listings -----------------------------------------------------------------------------------------------------


def test_a_large_folder_and_its_siblings(store: S3Store, s3_gateway: Gateway) -> None:
    """More than is held back at once: the siblings that sort before it are asked for, and shown once."""
    keys = ["f", "f-1", "f-2/x", "f-2/y", "f.zst", "f0", "g", *(f"f/{number:05d}" for number in range(1100))]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))
    keys.sort()
    assert [info.key for info in store.list()] == keys
    for start in ("f/00050", "f-2/x", "f/01050", "f."):
        assert [info.key for info in store.list(start_after=start)] == [key for key in keys if key > start]
    assert [info.key for info in store.list("f/")] == [key for key in keys if key.startswith("f/")]
    assert len(store.list_level("f/")[0]) == 1100
    store.delete(keys)
    assert list(store.list()) == []


def test_a_page_without_a_way_on_is_no_end(store: S3Store, s3_gateway: Gateway) -> None:
    body = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"
    s3_gateway.answer("GET", "list-type", 200, body)
    with pytest.raises(StorageError, match="does not go on"):
        list(store.list())


def test_uploads_come_in_pages(store: S3Store, s3_gateway: Gateway) -> None:
    real = store.start_upload("real")
    body = (
        "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextUploadIdMarker>{}</NextUploadIdMarker>"
        "<Upload><Key>{}</Key><UploadId>0</UploadId><Initiated>2026-01-01T00:00:00Z</Initiated></Upload>"
        "</ListMultipartUploadsResult>"
    )
    prefix = store.url.rpartition("/")[2]
    s3_gateway.answer("GET", "uploads", 200, body.format("0", f"{prefix}/first"))
    found = store.list_uploads()
    assert [one.key for one in found] == ["first", "real"]
    assert "upload-id-marker=0" in s3_gateway.requests[-1]
    s3_gateway.answer("GET", "uploads", 200, body.format("0", f"{prefix}/first"), times=100)
    with pytest.raises(StorageError, match="does not end"):
        store.list_uploads()
    real.abort()
