"""A copy is checked before it is sealed: here what only a server at a bad moment sends."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import cast

import pytest

from pgbackup.core.lsn import Lsn
from pgbackup.engines.backup.copying import BackupCopy, Copied
from pgbackup.engines.base import SilentProgress
from pgbackup.errors import BackupError
from pgbackup.postgres.base_backup_stream import BackupEnd, BaseBackupStream
from pgbackup.postgres.base_backup_wire import ArchiveBegins, BackupMessage, ManifestBegins
from pgbackup.storage.memory import MemoryStore
from tests.made_backup import ZSTD, make_control, make_manifest, make_tar

FILES = {"backup_label": b"label", "base/5/1259": bytes(8192), "global/pg_control": make_control()}


class _Server:
    """Sends files as a server of 15 or later does, and its manifest of them."""

    def __init__(self, files: dict[str, bytes], warned: Iterable[str]) -> None:
        self._files = files
        self._warned = warned

    def messages(self, stop: object) -> Iterator[BackupMessage]:
        yield ArchiveBegins(None)
        yield memoryview(make_tar(self._files))
        yield ManifestBegins()
        yield memoryview(make_manifest(self._files))

    def end(self) -> BackupEnd:
        return BackupEnd(Lsn(0), 1, {}, frozenset(self._warned))


def _copy(files: dict[str, bytes], warned: Iterable[str] = ()) -> Copied:
    copy = BackupCopy(
        MemoryStore(), ZSTD, "base_000000010000000000000003", part_bytes=1 << 20, concurrency=1,
        progress=SilentProgress(), stop=threading.Event(),
    )  # fmt: skip
    try:
        return copy.run(cast(BaseBackupStream, _Server(files, warned)), refuse_damaged_pages=False)
    finally:
        copy.close()


def test_a_whole_copy() -> None:
    assert _copy(FILES).files == len(FILES)


@pytest.mark.parametrize(
    "content", [make_control()[:100], b"\xff" + make_control()[1:], b""], ids=["short", "torn", "empty"]
)
def test_a_control_file_that_was_torn_while_it_was_sent_is_not_sealed(content: bytes) -> None:
    with pytest.raises(BackupError, match="pg_control") as error:
        _copy(FILES | {"global/pg_control": content})
    assert error.value.retryable


@pytest.mark.parametrize(
    "path", ["base/16384", "base/5/1260", "pg_xact", "pg_multixact/members", "global/1262", "pg_tblspc/16385/PG_18_1"]
)
def test_what_a_cluster_needs_and_was_left_out(path: str) -> None:
    with pytest.raises(BackupError, match=f"leaves {path} out"):
        _copy(FILES, [path, "base/5/1259"])


@pytest.mark.parametrize(
    ("warned", "told"),
    [
        (["base/5/1259"], ""),  # about its pages
        ([".s.PGSQL.5432"], ""),
        (["conf.d/links.conf", "base/notes"], "base/notes, conf.d/links.conf"),
    ],
)
def test_what_a_cluster_does_without(warned: list[str], told: str, caplog: pytest.LogCaptureFixture) -> None:
    assert _copy(FILES, warned).files == len(FILES)
    assert (told in caplog.text) if told else not caplog.records
