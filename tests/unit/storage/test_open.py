"""From URLs to stores; what is refused, and what is never imported or repeated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pgbackup.errors import ConfigError, StorageError
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.file import FileStore
from pgbackup.storage.limited import LimitedStore
from pgbackup.storage.memory import MemoryStore
from pgbackup.storage.open import open_store
from pgbackup.storage.readonly import ReadOnlyStore


def test_a_folder(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    assert isinstance(store, FileStore)
    assert store.url == f"file://{tmp_path}"


def test_an_upload_rate_limits(tmp_path: Path) -> None:
    assert isinstance(open_store(f"file://{tmp_path}", upload_rate=1000), LimitedStore)


@pytest.mark.parametrize(
    "url",
    [
        "", "s3", "s3://", "s3:///prefix", "s3:/bucket", "gs://bucket", "/srv/backup", "http://host/bucket",
        "s3://key:SECRET@bucket/prefix", "s3://bucket?x=SECRET", "ftp://user:SECRET@host/",
    ],
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert caught.value.hint
    assert "SECRET" not in f"{caught.value} {caught.value.hint}"


def test_a_file_repository_does_not_import_boto3(tmp_path: Path) -> None:
    code = (
        "import sys; from pgbackup.storage.open import open_store; "
        "open_store('file:///nowhere/at/all').head('k'); "
        "print([name for name in sys.modules if name.startswith(('boto', 'urllib3'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_read_only_store_reads_and_refuses() -> None:
    inner = MemoryStore()
    inner.put("a/b", b"x")
    upload = inner.start_upload("c")
    store: ObjectStore = ReadOnlyStore(inner)
    assert store.get("a/b") == b"x"
    assert store.get_with_etag("a/b")[0] == b"x"
    assert store.head("a/b") == inner.head("a/b")
    assert [info.key for info in store.list()] == ["a/b"]
    assert store.list_level()[1] == ["a/"]
    assert len(store.list_uploads()) == 1
    assert store.clock() is not None
    with store.open_read("a/b") as stream:
        assert stream.read() == b"x"
    for call in (
        lambda: store.put("k", b""),
        lambda: store.put_if_absent("k", b""),
        lambda: store.replace("k", b"", ""),
        lambda: store.delete(["a/b"]),
        lambda: store.start_upload("k"),
        lambda: store.abort_upload("c", upload.upload_id),
    ):
        with pytest.raises(StorageError, match="for reading only"):
            call()
    assert [info.key for info in inner.list()] == ["a/b"]
