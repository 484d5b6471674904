"""Listings of both kinds of store come out in the order of keys, whatever is held back or asked for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.errors import StorageError
from pgbackup.storage import key_order
from pgbackup.storage.base import ObjectInfo
from pgbackup.storage.key_order import in_key_order, safe_start

NAMES = st.text("ab-.0é", min_size=1, max_size=3)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def folder_by_folder(keys: list[str]) -> list[str]:
    """The order of a store over a file system: by names, an object before the folder of the same name."""
    return sorted(keys, key=lambda key: key.split("/"))


def infos(keys: list[str]) -> Iterator[ObjectInfo]:
    return (ObjectInfo(key, 1, NOW) for key in keys)


def listed(keys: list[str], prefix: str, start_after: str) -> list[str]:
    """``in_key_order`` of a listing of some keys, in the order given."""
    below = [key for key in keys if key.startswith(prefix)]
    later = [key for key in below if key > start_after]

    def siblings(folder: str) -> Iterator[ObjectInfo]:
        return infos(sorted(key for key in below if key.startswith(folder[:-1]) and key < folder))

    return [found.key for found in in_key_order(infos(later), prefix, siblings, start_after=start_after)]


@given(st.sets(PATHS, max_size=60), st.integers(1, 5), st.one_of(st.just(""), PATHS), st.one_of(st.just(""), PATHS))
def test_both_orders_become_the_order_of_keys(paths: set[str], held: int, prefix: str, start_after: str) -> None:
    keys = list(paths)
    expected = sorted(key for key in keys if key.startswith(prefix) and key > start_after)
    with patch.object(key_order, "HELD_OBJECTS", held):
        assert listed(folder_by_folder(keys), prefix, start_after) == expected
        assert listed(sorted(keys), prefix, start_after) == expected


@given(st.sets(PATHS, max_size=40), PATHS, st.one_of(st.just(""), PATHS))
def test_a_safe_start_loses_nothing(paths: set[str], start_after: str, prefix: str) -> None:
    if not start_after.startswith(prefix):
        return
    start = safe_start(prefix, start_after)
    assert start <= start_after
    wanted = {key for key in paths if key.startswith(prefix) and key > start_after}
    assert wanted <= {key for key in paths if key > start}
    # A store that goes folder by folder leaves out the folder whose name it is told to start after.
    shown = {key for key in paths if key.split("/") > start.split("/") and not (start and key.startswith(f"{start}/"))}
    assert wanted <= shown


@pytest.mark.parametrize(
    ("prefix", "start_after", "start"),
    [
        ("wal/", "wal/0001.zst", "wal/000"),
        ("wal/", "wal/0001", "wal/000"),
        ("wal/", "wal/0001.partial/0", "wal/000"),
        ("", "wal/a/b", "wal/a/"),
        ("", "wal/a/", "wal/a/"),
        ("wal/", "wal/a", ""),
        ("wal/", "wal/-a", ""),
        ("my.prefix/wal/", "my.prefix/wal/abc", "my.prefix/wal/ab"),
        ("", "", ""),
    ],
)
def test_safe_start(prefix: str, start_after: str, start: str) -> None:
    assert safe_start(prefix, start_after) == start


def test_a_store_without_order_is_refused() -> None:
    with pytest.raises(StorageError, match="lists a after b"):
        list(in_key_order(infos(["b", "a"]), "", lambda folder: ()))


def test_a_large_folder_is_not_read_before_the_first_object() -> None:
    taken = 0

    def many() -> Iterator[ObjectInfo]:
        nonlocal taken
        for number in range(5000):
            taken += 1
            yield ObjectInfo(f"wal/{number:06d}", 1, NOW)

    assert next(in_key_order(many(), "", lambda folder: ())).key == "wal/000000"
    assert taken <= key_order.HELD_OBJECTS + 1
