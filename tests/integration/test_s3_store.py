"""S3Store on a real S3 server: the whole contract over http and TLS."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pgbackup.storage.base import ObjectStore
from pgbackup.storage.s3 import S3Store
from pgbackup.storage.s3_body import checksum_of
from pgbackup.storage.s3_upload import MIN_PART_BYTES
from pgbackup.storage.stream_writer import ObjectWriter
from tests.contracts.object_store import ObjectStoreContract
from tests.fix_store import S3Server, open_s3, set_aws_env

pytestmark = pytest.mark.not_for_walg("keys that look like WAL, of anything")


class TestOverHttp(ObjectStoreContract):
    @pytest.fixture
    def store(self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
        store = open_s3(s3_server, monkeypatch)
        yield store
        store.close()


class TestOverTls(ObjectStoreContract):
    @pytest.fixture
    def store(self, s3_tls_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
        store = open_s3(s3_tls_server, monkeypatch)
        yield store
        store.close()


def test_a_whole_bucket_as_repository(s3_own_bucket: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_s3(s3_own_bucket, monkeypatch, prefix="")
    assert store.url == f"s3://{s3_own_bucket.bucket}"
    assert list(store.list()) == []
    assert store.put_if_absent("a", b"x")
    assert store.put_if_absent("b/c", b"y")
    upload = store.start_upload("b/d")
    assert [one.key for one in store.list_uploads()] == ["b/d"]
    upload.abort()
    assert [info.key for info in store.list()] == ["a", "b/c"]
    assert [info.key for info in store.list(start_after="a")] == ["b/c"]
    objects, folders = store.list_level()
    assert ([info.key for info in objects], folders) == (["a"], ["b/"])
    store.delete(["a", "b/c"])
    assert list(store.list()) == []
    store.close()


@pytest.mark.parametrize("tls", [False, True])
def test_bodies_with_checksums(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tls: bool) -> None:
    """What AWS gets, on a server that knows it too. A checksum behind the body would cost copies of the body."""
    server: S3Server = request.getfixturevalue("s3_tls_server" if tls else "s3_server")
    store = open_s3(server, monkeypatch, checksums=True)
    sent: list[Any] = []
    store._client.meta.events.register("before-send.s3.*", lambda request, **_: sent.append(request))
    large = bytes(range(256)) * 2000
    assert store.put_if_absent("small", b"x")
    assert store.put_if_absent("large", large)
    with ThreadPoolExecutor(2) as pool:
        writer = ObjectWriter(store, "parts", part_bytes=MIN_PART_BYTES, submit=pool.submit)
        for _ in range(25):
            writer.write(large)
        assert writer.finish()
    bodies = [request for request in sent if request.method == "PUT"]
    assert len(bodies) > 4
    assert all("x-amz-checksum-crc32" in request.headers for request in bodies)
    assert not any("x-amz-trailer" in request.headers for request in bodies)
    assert store.get("small") == b"x"
    assert store.get("large") == large
    assert store.get("parts") == large * 25
    store.close()


def test_a_body_that_is_not_its_checksum_is_refused(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_s3(s3_server, monkeypatch)
    wrong: Any = checksum_of(b"what was meant")
    with pytest.raises(ClientError, match=r"BadDigest|checksum"):
        store._client.put_object(Bucket=store._bucket.name, Key=f"{store._prefix}k", Body=b"what came", **wrong)
    assert store.head("k") is None
    store.close()


def test_the_region_is_that_of_aws_region(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every SDK but boto3 reads AWS_REGION, and a store of another maker refuses a signature for the wrong region."""
    set_aws_env({**s3_server.env("x"), "AWS_REGION": "eu-north-9"}, monkeypatch)
    store = S3Store("s3://bucket/x")
    assert store._client.meta.region_name == "eu-north-9"
    store.close()
