"""The port to an object store: bytes under keys, nothing about Postgres.

Contract, the same for every implementation and proven by one suite (tests/contracts/object_store.py):

* Keys are relative to the prefix of the repository URL, use ``/``, never begin with it.
* An object is durable when the call that stored it returns, and visible to every later call of every process.
* Objects appear whole or not at all; a failed or unfinished write leaves nothing that ``list`` shows.
* ``put_if_absent`` never overwrites. A retry that finds *our own* bytes from an earlier try reports ``False`` like
  any other existing object: the caller compares content, it never assumes.
* Every call may raise StoreUnavailable (retryable), StoreDenied (not), StorageError; ObjectMissing where said.
* Calls are safe from several threads.
* Nothing retries for ever: an implementation gives up within about a minute, callers decide what happens then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing knows of one object; ``modified`` is the store's clock, aware, UTC; ``etag`` is opaque."""

    key: str
    size_bytes: int
    modified: datetime
    etag: str = ""


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    started: datetime


class ByteStream(Protocol):
    """A forward-only reader. ``read(n)`` returns up to n bytes, and ``b""`` only at the true end of the object:
    a connection that breaks is resumed, or raises; it never looks like an end."""

    def read(self, size: int = -1, /) -> bytes: ...


@runtime_checkable
class MultipartUpload(Protocol):
    """One object sent in parts, in any order and from any thread; nothing is visible before ``complete``."""

    @property
    def upload_id(self) -> str: ...

    def put_part(self, number: int, data: bytes) -> None:
        """Send part ``number`` (from 1). All parts but the last need at least ``min_part_bytes`` of the store."""

    def complete(self) -> bool:
        """Make the object visible if none has that key. True: it is there now. False: another object was."""

    def abort(self) -> None:
        """Forget the parts. Never raises for an upload that is gone already."""


class ObjectStore(Protocol):
    """Bytes under keys; see the module's docstring for the contract."""

    @property
    def url(self) -> str:
        """Where this is, for people; never holds a secret."""

    @property
    def min_part_bytes(self) -> int:
        """The smallest part, except the last, that ``put_part`` takes."""

    def put(self, key: str, data: bytes) -> None:
        """Store, overwriting. Only for our own mutable bookkeeping (invariant 4)."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Store if no object has that key. True: stored. False: something is there, untouched."""

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        """Overwrite only the version with that etag. False: it is another version now, or gone."""

    def get(self, key: str) -> bytes:
        """The whole object. Raises ObjectMissing. Only for small objects."""

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """The whole object and the etag that ``replace`` takes. Raises ObjectMissing."""

    def open_read(self, key: str) -> AbstractContextManager[ByteStream]:
        """Read an object of any size as a stream. Raises ObjectMissing on entry."""

    def head(self, key: str) -> ObjectInfo | None:
        """What a listing would show of this key, or None."""

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key begins with ``prefix`` and sorts after ``start_after``, in order of key (bytes)."""

    def list_level(self, prefix: str = "") -> tuple[Sequence[ObjectInfo], Sequence[str]]:
        """The objects directly below ``prefix`` (which ends in ``/`` or is empty), and the folders with their ``/``.

        A folder may be shown for a while after its last object was deleted.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, in batches, in the order given. A key that is not there is no error.

        Raises DeleteRefused for objects that the store keeps (a lock, a policy): its ``keys`` names them, or it is
        empty when the whole call was refused. Of the other keys of the call some may be gone.
        """

    def start_upload(self, key: str) -> MultipartUpload:
        """Begin a multipart upload."""

    def list_uploads(self, prefix: str = "") -> Sequence[UnfinishedUpload]:
        """Multipart uploads below ``prefix`` that were neither completed nor aborted."""

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Abort an upload of any process. One that is gone already is no error."""

    def clock(self) -> datetime | None:
        """The store's own time (aware, UTC) as of a request made now, or None where it shows none."""

    def close(self) -> None:
        """Give back connections."""
