"""Listing and deleting many S3 objects: pages, levels, unfinished uploads, batches.

Keys in and out are full keys; ``s3.py`` adds and takes the repository's prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from pgbackup.errors import DeleteRefused, ObjectMissing, StorageError, StoreDenied
from pgbackup.storage.base import ObjectInfo, UnfinishedUpload
from pgbackup.storage.key_order import in_key_order, safe_start
from pgbackup.storage.s3_errors import NotImplementedByStore, Request, from_code

if TYPE_CHECKING:
    from pgbackup.storage.s3_client import Bucket

DELETE_BATCH = 1000


def list_objects(bucket: Bucket, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
    """Every object that begins with ``prefix`` and sorts after ``start_after``, in order of key."""
    if start_after > prefix and not start_after.startswith(prefix):
        return
    start = safe_start(prefix, start_after) if start_after > prefix else ""
    wanted: dict[str, Any] = {"StartAfter": start} if start else {}

    def later() -> Iterator[ObjectInfo]:
        for page in _pages(bucket, prefix, wanted):
            for entry in page.get("Contents", ()):
                if entry["Key"] > start_after and not entry["Key"].endswith("/"):
                    yield _info(entry)

    def siblings(folder: str) -> Iterator[ObjectInfo]:
        return _earlier_siblings(bucket, folder)

    yield from in_key_order(later(), prefix, siblings, start_after=start_after)


def list_level(bucket: Bucket, prefix: str) -> tuple[Sequence[ObjectInfo], Sequence[str]]:
    """The objects and the folders directly below ``prefix``, each in order.

    Keys that end in ``/`` are the folders that consoles make; they hold nothing and are no objects of ours.
    """
    objects: list[ObjectInfo] = []
    folders: list[str] = []
    for page in _pages(bucket, prefix, {"Delimiter": "/"}):
        objects += (_info(entry) for entry in page.get("Contents", ()) if not entry["Key"].endswith("/"))
        folders += (entry["Prefix"] for entry in page.get("CommonPrefixes", ()))
    return sorted(objects, key=lambda info: info.key), sorted(folders)


def list_uploads(bucket: Bucket, prefix: str) -> Iterator[UnfinishedUpload]:
    """Every multipart upload below ``prefix`` that is neither completed nor aborted."""
    marker: dict[str, Any] = {}
    while True:
        wanted = {"Bucket": bucket.name, "Prefix": prefix, **marker}
        page: Any = bucket.call("ListMultipartUploads", prefix, partial(bucket.client.list_multipart_uploads, **wanted))
        for entry in page.get("Uploads", ()):
            yield UnfinishedUpload(entry["Key"], entry["UploadId"], entry["Initiated"].astimezone(UTC))
        if not page.get("IsTruncated"):
            return
        # SeaweedFS gives the marker of the upload without the marker of the key, and wants it back like that.
        following = {name: page[f"Next{name}"] for name in ("KeyMarker", "UploadIdMarker") if page.get(f"Next{name}")}
        if not following or following == marker:
            raise StorageError(f"the listing of uploads of bucket {bucket.name} does not end")
        marker = following


def delete_objects(bucket: Bucket, keys: Iterable[str]) -> None:
    """Delete in batches, in order from batch to batch; inside a batch a store may choose its own.

    Raises DeleteRefused, with the keys, after a batch of which the store keeps some.
    """
    rest = iter(keys)
    one_by_one = False
    while batch := list(islice(rest, DELETE_BATCH)):
        # A single key needs no batch, which some stores do not know and others forbid.
        if not one_by_one and len(batch) > 1:
            try:
                _delete_batch(bucket, batch)
                continue
            except NotImplementedByStore:
                one_by_one = True
        _raise_refused([refusal for key in batch if (refusal := _delete_one(bucket, key)) is not None])


def _delete_batch(bucket: Bucket, batch: list[str]) -> None:
    wanted: Any = {"Objects": [{"Key": key} for key in batch], "Quiet": True}
    answer: Any = bucket.call(
        "DeleteObjects", "", lambda: bucket.client.delete_objects(Bucket=bucket.name, Delete=wanted)
    )
    problems = []
    for entry in answer.get("Errors", ()):
        request = Request("DeleteObject", bucket.name, entry.get("Key", ""), bucket.endpoint)
        problem = from_code(entry.get("Code", ""), entry.get("Message", ""), 0, request)
        if not isinstance(problem, ObjectMissing):
            problems.append(problem)
    refused = [problem for problem in problems if isinstance(problem, DeleteRefused)]
    if len(refused) < len(problems):
        # One that is denied will not pass by itself, so it is the one to tell.
        raise next((problem for problem in problems if isinstance(problem, StoreDenied)), problems[0])
    _raise_refused(refused)


def _delete_one(bucket: Bucket, key: str) -> DeleteRefused | None:
    """Delete one object, or return the store's refusal."""
    try:
        bucket.call("DeleteObject", key, lambda: bucket.client.delete_object(Bucket=bucket.name, Key=key))
    except ObjectMissing:
        pass
    except DeleteRefused as refusal:
        return refusal
    return None


def _raise_refused(refused: list[DeleteRefused]) -> None:
    if refused:
        first = refused[0]
        keys = tuple(key for refusal in refused for key in refusal.keys)
        raise DeleteRefused(first.message, keys=keys, detail=first.detail, hint=first.hint)


def _pages(bucket: Bucket, prefix: str, wanted: dict[str, Any]) -> Iterator[Any]:
    position: dict[str, Any] = {}
    while True:
        request = {"Bucket": bucket.name, "Prefix": prefix, **wanted, **position}
        page: Any = bucket.call("ListObjectsV2", prefix, partial(bucket.client.list_objects_v2, **request))
        yield page
        if not page.get("IsTruncated"):
            return
        following = {"ContinuationToken": page.get("NextContinuationToken", "")}
        if not following["ContinuationToken"] or following == position:
            # Ending here would make objects look absent.
            raise StorageError(f"the listing of s3://{bucket.name}/{prefix} does not go on")
        position = following


def _earlier_siblings(bucket: Bucket, folder: str) -> Iterator[ObjectInfo]:
    """What begins with the folder's name without its slash and sorts before the folder, in order of key."""
    stem = folder[:-1]
    found: dict[str, ObjectInfo | None] = {}
    for page in _pages(bucket, stem, {"Delimiter": "/"}):
        entries = {entry["Key"]: _info(entry) for entry in page.get("Contents", ())}
        entries.update({entry["Prefix"]: None for entry in page.get("CommonPrefixes", ())})
        found.update((name, info) for name, info in entries.items() if stem < name < folder)
        if any(name > folder for name in entries):
            break
    for name, info in sorted(found.items()):
        if info is None:
            yield from list_objects(bucket, name, "")
        else:
            yield info


def _info(entry: Any) -> ObjectInfo:
    return ObjectInfo(entry["Key"], int(entry["Size"]), entry["LastModified"].astimezone(UTC), entry.get("ETag", ""))
