"""The contract of an object store (pgbackup/storage/base.py), as one suite for every implementation.

A test module subclasses ``ObjectStoreContract`` and gives it a fixture ``store``: an empty store, of its own.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.errors import ObjectMissing, StorageError
from pgbackup.storage.base import MultipartUpload, ObjectStore

# Names that sort differently by folder than by key, and characters that need quoting somewhere.
KEYS = [
    "a", "a+b", "a-", "a-b/c", "a.zst", "a0", "b/1", "b/1.x", "b/1/2", "b/10", "b.partial/1", "b.partial.zst",
    "c/ü", "c/z z", "c/%41", "c/q?x=1&y", "c/#", "wal_005/0000000100000000000000AB.partial/00000000-00001000.zst",
    "wal_005/0000000100000000000000AB.zst",
]  # fmt: skip


class ObjectStoreContract:
    """Subclass it, and give it ``store``."""

    keys: tuple[str, ...] = tuple(KEYS)

    # -- one object ---------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 4096, 300_000, 3_000_001])
    def test_what_was_put_is_read(self, store: ObjectStore, size: int) -> None:
        data = bytes(index * 31 % 256 for index in range(1000)) * (size // 1000 + 1)
        data = data[:size]
        assert store.put_if_absent("x/object", data) is True
        assert store.get("x/object") == data
        with store.open_read("x/object") as stream:
            assert read_in_steps(stream.read, 77_777) == data
            assert stream.read(10) == b""
        with store.open_read("x/object") as stream:
            assert stream.read() == data
        info = store.head("x/object")
        assert info is not None
        assert (info.key, info.size_bytes) == ("x/object", size)
        assert abs(datetime.now(UTC) - info.modified) < timedelta(minutes=1)
        assert info.modified.utcoffset() == timedelta(0)

    def test_put_overwrites(self, store: ObjectStore) -> None:
        store.put("k", b"one")
        store.put("k", b"second")
        assert store.get("k") == b"second"
        assert [info.size_bytes for info in store.list()] == [6]

    def test_put_if_absent_leaves_what_is_there(self, store: ObjectStore) -> None:
        assert store.put_if_absent("k", b"one") is True
        assert store.put_if_absent("k", b"two") is False
        assert store.put_if_absent("k", b"one") is False
        assert store.get("k") == b"one"
        store.delete(["k"])
        assert store.put_if_absent("k", b"three") is True
        assert store.get("k") == b"three"

    def test_of_many_writers_one_wins(self, store: ObjectStore) -> None:
        with ThreadPoolExecutor(8) as pool:
            for round_ in range(3):
                key = f"race/{round_}"
                outcomes = list(pool.map(lambda n, key=key: store.put_if_absent(key, b"%d" % n), range(8)))
                assert Counter(outcomes) == {True: 1, False: 7}
                assert store.get(key) == b"%d" % outcomes.index(True)

    def test_nothing_there(self, store: ObjectStore) -> None:
        assert store.head("nothing") is None
        assert list(store.list()) == []
        assert list(store.list("nothing/")) == []
        assert store.list_level() == ([], [])
        assert list(store.list_uploads()) == []
        with pytest.raises(ObjectMissing):
            store.get("nothing")
        with pytest.raises(ObjectMissing):
            store.get_with_etag("nothing")
        with pytest.raises(ObjectMissing), store.open_read("nothing"):
            pass
        store.delete(["nothing", "nothing/at/all"])
        store.delete([])

    def test_a_folder_is_no_object(self, store: ObjectStore) -> None:
        store.put("folder/sub/object", b"x")
        for key in ("folder", "folder/sub"):
            assert store.head(key) is None
            with pytest.raises(ObjectMissing):
                store.get(key)
        store.delete(["folder", "folder/sub"])
        assert store.get("folder/sub/object") == b"x"

    @pytest.mark.parametrize("key", ["", "/absolute"])
    def test_not_a_key(self, store: ObjectStore, key: str) -> None:
        with pytest.raises(StorageError):
            store.put(key, b"x")
        with pytest.raises(StorageError):
            store.put_if_absent(key, b"x")
        with pytest.raises(StorageError):
            store.get(key)
        assert list(store.list()) == []

    # -- versions -----------------------------------------------------------------------------------------------

    def test_replace_needs_the_version_that_is_there(self, store: ObjectStore) -> None:
        store.put("k", b"one")
        data, first = store.get_with_etag("k")
        assert data == b"one"
        assert store.replace("k", b"two", first) is True
        assert store.replace("k", b"three", first) is False
        assert store.get("k") == b"two"
        second = store.get_with_etag("k")[1]
        assert second != first
        info = store.head("k")
        assert info is not None
        assert info.etag == second
        assert store.replace("k", b"three", second) is True
        store.delete(["k"])
        assert store.replace("k", b"four", second) is False
        assert store.head("k") is None

    def test_of_many_replacers_one_wins(self, store: ObjectStore) -> None:
        store.put("k", b"start")
        with ThreadPoolExecutor(8) as pool:
            for round_ in range(3):
                etag = store.get_with_etag("k")[1]
                values = [b"%d-%d" % (round_, n) for n in range(8)]
                outcomes = list(pool.map(lambda value, etag=etag: store.replace("k", value, etag), values))
                assert Counter(outcomes) == {True: 1, False: 7}
                assert store.get("k") == values[outcomes.index(True)]

    # -- many objects -------------------------------------------------------------------------------------------

    def test_listing_is_in_order_of_key(self, store: ObjectStore) -> None:
        keys = self.fill(store)
        found = list(store.list())
        assert [info.key for info in found] == keys
        for info in found:
            assert store.get(info.key) == info.key.encode()
            assert info == store.head(info.key)

    def test_listing_of_a_prefix(self, store: ObjectStore) -> None:
        keys = self.fill(store)
        for prefix in ("", "a", "a/", "b", "b/", "b/1", "b/1/", "b.partial/", "wal_005/", "wal_005/0000", "zz", "c/z"):
            expected = [key for key in keys if key.startswith(prefix)]
            assert [info.key for info in store.list(prefix)] == expected, prefix

    def test_listing_after_a_key(self, store: ObjectStore) -> None:
        keys = self.fill(store)
        starts = [
            *keys,
            "",
            "a/",
            "a/0",
            "b",
            "b/",
            "b.",
            "b.partial",
            "b.partial/",
            "c/zzz",
            "wal_005/0000",
            "zz",
            "!",
        ]
        for prefix in ("", "b", "b/", "wal_005/"):
            for start in starts:
                expected = [key for key in keys if key.startswith(prefix) and key > start]
                assert [info.key for info in store.list(prefix, start_after=start)] == expected, (prefix, start)

    def test_one_level(self, store: ObjectStore) -> None:
        keys = self.fill(store)
        for prefix in ("", "a-b/", "b/", "b/1/", "c/", "wal_005/", "none/"):
            objects, folders = store.list_level(prefix)
            below = [key[len(prefix) :] for key in keys if key.startswith(prefix)]
            assert [info.key for info in objects] == [prefix + name for name in below if "/" not in name]
            assert list(folders) == sorted({f"{prefix}{name.split('/')[0]}/" for name in below if "/" in name})

    def test_a_listing_may_be_left_early(self, store: ObjectStore) -> None:
        self.fill(store)
        assert next(iter(store.list())).key == "a"

    def test_delete(self, store: ObjectStore) -> None:
        keys = self.fill(store)
        store.delete(["not/there", *keys[::2], keys[0]])
        assert [info.key for info in store.list()] == keys[1::2]
        store.delete(iter(keys))
        assert list(store.list()) == []
        # A store over a file system may show a folder for some seconds after its last object went.
        objects, folders = store.list_level()
        assert objects == []
        assert [info for folder in folders for info in store.list(folder)] == []

    # -- multipart uploads --------------------------------------------------------------------------------------

    def test_parts_in_any_order_become_one_object(self, store: ObjectStore) -> None:
        size = max(store.min_part_bytes, 1000)
        parts = {number: bytes([number]) * size for number in (1, 2)} | {3: b"the end"}
        upload = store.start_upload("m/object")
        assert isinstance(upload, MultipartUpload)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda number: upload.put_part(number, parts[number]), (3, 1, 2)))
        assert store.head("m/object") is None
        assert list(store.list()) == []
        pending = store.list_uploads("m/")
        assert [(one.key, one.upload_id) for one in pending] == [("m/object", upload.upload_id)]
        assert abs(datetime.now(UTC) - pending[0].started) < timedelta(minutes=1)
        assert store.list_uploads("other/") == []
        assert upload.complete() is True
        assert store.get("m/object") == parts[1] + parts[2] + parts[3]
        assert list(store.list_uploads()) == []
        assert [info.size_bytes for info in store.list()] == [2 * size + 7]

    def test_a_part_may_be_sent_again(self, store: ObjectStore) -> None:
        upload = store.start_upload("m")
        upload.put_part(1, b"first try")
        upload.put_part(1, b"second try")
        assert upload.complete() is True
        assert store.get("m") == b"second try"

    def test_an_upload_never_replaces_an_object(self, store: ObjectStore) -> None:
        upload = store.start_upload("m")
        upload.put_part(1, b"late")
        assert store.put_if_absent("m", b"early") is True
        assert upload.complete() is False
        assert store.get("m") == b"early"
        assert list(store.list_uploads()) == []
        upload.abort()

    def test_an_aborted_upload_leaves_nothing(self, store: ObjectStore) -> None:
        upload = store.start_upload("m")
        upload.put_part(1, b"x")
        upload.abort()
        upload.abort()
        assert store.head("m") is None
        assert list(store.list_uploads()) == []
        with pytest.raises(StorageError):
            upload.put_part(2, b"y")
        with pytest.raises(StorageError):
            upload.complete()
        assert store.head("m") is None

    def test_uploads_of_others_can_be_aborted(self, store: ObjectStore) -> None:
        uploads = [store.start_upload(f"m/{number % 2}") for number in range(5)]
        found = {(one.key, one.upload_id) for one in store.list_uploads()}
        assert found == {(f"m/{number % 2}", upload.upload_id) for number, upload in enumerate(uploads)}
        for key, upload_id in found:
            store.abort_upload(key, upload_id)
        assert list(store.list_uploads()) == []
        store.abort_upload(*found.pop())

    # -- the store itself ---------------------------------------------------------------------------------------

    def test_clock(self, store: ObjectStore) -> None:
        clock = store.clock()
        assert clock is None or abs(datetime.now(UTC) - clock) < timedelta(minutes=1)

    def test_url_is_for_people(self, store: ObjectStore) -> None:
        assert "://" in store.url
        assert not store.url.endswith("//object")

    def test_calls_from_several_threads(self, store: ObjectStore) -> None:
        def work(name: int) -> None:
            for number in range(5):
                key = f"{name}/{number}"
                assert store.put_if_absent(key, key.encode())
                assert store.get(key) == key.encode()
                assert [info.key for info in store.list(f"{name}/")][-1] == key
            store.delete([f"{name}/{number}" for number in range(5)])

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        assert list(store.list()) == []

    def fill(self, store: ObjectStore) -> list[str]:
        """Put every key, its bytes being its name; returns them in order."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, key.encode()), self.keys))
        return sorted(self.keys)


def read_in_steps(read: object, size: int) -> bytes:
    """Everything, in reads of up to ``size`` bytes, each of which must keep to that."""
    assert callable(read)
    found = []
    while data := read(size):
        assert len(data) <= size
        found.append(data)
    return b"".join(found)
