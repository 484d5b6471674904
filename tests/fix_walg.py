"""Every repository that a test with real servers leaves behind is such that WAL-G would take it.

Stores and codecs that the test makes in its own process are remembered as they are made, the repositories of programs
when those are; at the end of a test that succeeded the rules of tests/walg are laid over all of them. A test that
damages its repository says so: ``@pytest.mark.not_for_walg("why")``.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pgbackup.errors import PgbackupError
from pgbackup.repository.codec import Codec
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.file import FileStore
from pgbackup.storage.memory import MemoryStore
from pgbackup.storage.open import open_store
from pgbackup.storage.s3 import S3Store
from tests.fix_app import PROGRAM_ENVIRONMENTS
from tests.walg.accepts import refusals

FAILED = pytest.StashKey[bool]()
_FOLDERS = {"integration", "e2e"}
"""Where whole repositories are made: other tests put there what they please."""
_BY_HAND = {"tests.archiving", "tests.foreign_archives", "tests.made_backup", "tests.restoring"}
"""Who uses these makes repositories without our writer, as far as the test needs them, or as other tools do."""


@dataclass
class Made:
    """What one test has made."""

    stores: list[ObjectStore] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)
    environments: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture(autouse=True)
def walg_takes_it(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Remembers what the test makes, and looks at it at the end: before ``tmp_path`` is removed."""
    node = request.node
    if not _is_wanted(node):
        yield
        return
    made = Made()
    for kind in (MemoryStore, FileStore, S3Store):
        _remember(monkeypatch, kind, made.stores.append)
    _remember(monkeypatch, Codec, lambda codec: made.keys.update([codec._key] if codec._key else []))
    made.environments = node.stash.setdefault(PROGRAM_ENVIRONMENTS, [])
    yield
    monkeypatch.undo()
    if not node.stash.get(FAILED, False):
        _look(made, monkeypatch)


def _is_wanted(node: Any) -> bool:
    if node.path.parent.name not in _FOLDERS or node.get_closest_marker("not_for_walg"):
        return False
    return _BY_HAND.isdisjoint(getattr(each, "__module__", None) for each in vars(node.module).values())


def _remember(monkeypatch: pytest.MonkeyPatch, kind: type, note: Callable[[Any], object]) -> None:
    """Each new object of that class is told to ``note``."""
    original = kind.__init__

    def init(self: Any, *args: Any, **more: Any) -> None:
        original(self, *args, **more)
        note(self)

    monkeypatch.setattr(kind, "__init__", init)


def _look(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [*made.keys, *(key for env in made.environments if (key := _key_of(env)) is not None)]
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for store in made.stores:
        url = store.url if not isinstance(store, MemoryStore) else f"memory:{id(store)}"
        if url not in seen:
            seen.add(url)
            _look_at(store, url, keys, found)
    for env in made.environments:
        url = env.get("PGBACKUP_REPOSITORY", "")
        if url and "{" not in url and url not in seen:
            seen.add(url)
            _look_in(url, env, keys, found, monkeypatch)
    assert not found, f"WAL-G would not take this: {found}"


def _look_in(
    url: str, env: dict[str, str], keys: list[bytes], found: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for name in [name for name in (*os.environ, *env) if name.startswith("AWS_")]:
            patch.delenv(name, raising=False)
            if name in env:
                patch.setenv(name, env[name])
        with suppress(PgbackupError):
            _look_at(open_store(url), url, keys, found)


def _look_at(store: ObjectStore, url: str, keys: list[bytes], found: dict[str, list[str]]) -> None:
    with suppress(PgbackupError):  # closed, or behind a proxy that is gone
        if problems := refusals(store, keys):
            found[url] = problems


def _key_of(env: dict[str, str]) -> bytes | None:
    """The key as WAL-G makes it of the text: cut or filled to 32 bytes unless it is hex or base64."""
    text = env.get("PGBACKUP_ENCRYPTION_KEY")
    match env.get("PGBACKUP_ENCRYPTION_KEY_TRANSFORM", "none"):
        case _ if text is None:
            return None
        case "hex":
            with suppress(ValueError):  # of a test that gives a bad one
                return bytes.fromhex(text)
            return None
        case "base64":
            return base64.b64decode(text)
    return text.encode()[:32].ljust(32, b"\0")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    if report.failed:
        item.stash[FAILED] = True
    return report  # type: ignore[return-value]
