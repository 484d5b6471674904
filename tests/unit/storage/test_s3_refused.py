"""Deletions of which an S3 store keeps objects: they are named, and the rest of the call is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pgbackup.errors import DeleteRefused, StoreDenied, StoreUnavailable
from pgbackup.storage.s3_errors import NotImplementedByStore, Request, from_code
from pgbackup.storage.s3_listing import delete_objects


class FakeBucket:
    """A bucket whose client answers DeleteObjects with these errors, or does not know it."""

    def __init__(self, codes: dict[str, str], *, knows_batches: bool = True) -> None:
        self.name = "bkt"
        self.endpoint = "https://store.example"
        self.client = self
        self._codes = codes
        self._knows_batches = knows_batches
        self.gone: list[str] = []

    def call(self, operation: str, key: str, function: Callable[[], Any]) -> Any:
        if operation == "DeleteObjects" and not self._knows_batches:
            raise NotImplementedByStore("no batches")
        return function()

    def delete_objects(self, Bucket: str, Delete: Any) -> Any:
        keys = [entry["Key"] for entry in Delete["Objects"]]
        self.gone += [key for key in keys if key not in self._codes]
        return {"Errors": [{"Key": k, "Code": self._codes[k], "Message": "no"} for k in keys if k in self._codes]}

    def delete_object(self, Bucket: str, Key: str) -> None:
        if Key in self._codes:
            raise from_code(self._codes[Key], "no", 403, Request("DeleteObject", self.name, Key, self.endpoint))
        self.gone.append(Key)


@pytest.mark.parametrize("knows_batches", [True, False])
def test_kept_objects_are_named(knows_batches: bool) -> None:
    bucket = FakeBucket({"b": "AccessDenied", "c": "ObjectLocked"}, knows_batches=knows_batches)
    with pytest.raises(DeleteRefused) as caught:
        delete_objects(bucket, ["a", "b", "c", "d"])  # type: ignore[arg-type]
    assert (caught.value.keys, bucket.gone) == (("b", "c"), ["a", "d"])


def test_another_failure_goes_before_a_refusal() -> None:
    bucket = FakeBucket({"b": "InternalError", "c": "InvalidAccessKeyId"})
    with pytest.raises(StoreDenied, match="was refused") as caught:
        delete_objects(bucket, ["a", "b", "c"])  # type: ignore[arg-type]
    assert not isinstance(caught.value, DeleteRefused)
    bucket = FakeBucket({"b": "InternalError"})
    with pytest.raises(StoreUnavailable):
        delete_objects(bucket, ["a", "b"])  # type: ignore[arg-type]
