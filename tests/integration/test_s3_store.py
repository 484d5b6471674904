"""S3Store on a real S3 server: the whole contract over http and TLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgbackup.storage.base import ObjectStore
from tests.contracts.object_store import ObjectStoreContract
from tests.fix_store import S3Server, open_s3


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


class TestWithoutAPrefix(ObjectStoreContract):
    """The repository is the whole bucket."""

    @pytest.fixture
    def store(self, s3_own_bucket: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
        store = open_s3(s3_own_bucket, monkeypatch, prefix="")
        yield store
        store.close()
