"""Listings in the order of whole keys, from stores that list folder by folder.

AWS lists by the bytes of the key: ``a``, ``a+b``, ``a.zst``, ``a/1``. A store over a file system (SeaweedFS) lists a
folder where its name without the slash stands: ``a``, ``a/1``, ``a+b``, ``a.zst``. The two differ only where a
sibling's name begins with the folder's name and goes on with a byte below ``/``. So ``in_key_order`` holds a folder
back until the siblings that belong before it have passed; when it grows too large to be held, it asks for them.
``safe_start`` is the matching care for where a listing starts.

Keys are compared as text: code points and UTF-8 bytes have the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pgbackup.errors import StorageError
from pgbackup.storage.base import ObjectInfo

HELD_OBJECTS = 1000

Siblings = Callable[[str], Iterable[ObjectInfo]]
"""Given a folder: what begins with its name without the slash and sorts before it, in order of key."""


def safe_start(prefix: str, start_after: str) -> str:
    """A place at or before ``start_after`` that has all later keys behind it in both orders; ``""``: the beginning.

    From the first byte below ``/`` on, the orders may differ. And a store that starts after a folder's name leaves
    out what is in the folder, so the place is never the end of a name.
    """
    below = (at for at in range(len(prefix), len(start_after)) if start_after[at] < "/")
    end = next(below, len(start_after))
    if end > 0 and start_after[end - 1] != "/":
        end -= 1
    return start_after[:end] if end > len(prefix) else ""


def in_key_order(
    objects: Iterable[ObjectInfo], prefix: str, siblings: Siblings, *, start_after: str = ""
) -> Iterator[ObjectInfo]:
    """``objects``, a listing of ``prefix`` in either order without what is not after ``start_after``, in key order."""
    last = start_after
    for found in _Reorder(objects, siblings, start_after).level(prefix):
        if found.key < last:
            raise StorageError(
                f"the store lists {found.key} after {last}",
                hint="Use a store that lists in the order of keys; S3 directory buckets do not.",
            )
        last = found.key
        yield found


class _Reorder:
    """One pass over a listing, with what was taken from it and not used yet."""

    def __init__(self, objects: Iterable[ObjectInfo], siblings: Siblings, start_after: str) -> None:
        self._rest = iter(objects)
        self._siblings = siblings
        self._back: list[ObjectInfo] = []
        """Objects that come before the rest, the next one last."""
        self._asked: list[str] = []
        """Folders whose siblings were asked for: the listing of a folder by folder store shows them again."""
        self._last = start_after

    def level(self, prefix: str) -> Iterator[ObjectInfo]:
        """Everything that comes next and begins with ``prefix``."""
        while (found := self._peek()) is not None and found.key.startswith(prefix):
            yield from self._one(found, prefix)

    def _one(self, found: ObjectInfo, prefix: str) -> Iterator[ObjectInfo]:
        """The next object, or the folder that it is in."""
        name, slash, _ = found.key[len(prefix) :].partition("/")
        if slash:
            yield from self._folder(f"{prefix}{name}/")
        else:
            self._back.pop()
            yield self._passed(found)

    def _folder(self, folder: str) -> Iterator[ObjectInfo]:
        """A folder, after its siblings that sort before it."""
        held: list[ObjectInfo] = []
        while (found := self._peek()) is not None and found.key.startswith(folder) and len(held) < HELD_OBJECTS:
            held.append(self._back.pop())
        if found is not None and found.key.startswith(folder):
            yield from self._large_folder(folder, held)
            return
        stem = folder[:-1]
        while (found := self._peek()) is not None and found.key.startswith(stem) and found.key < folder:
            yield from self._one(found, stem)
        yield from map(self._passed, sorted(held, key=lambda one: one.key))

    def _large_folder(self, folder: str, held: list[ObjectInfo]) -> Iterator[ObjectInfo]:
        last = self._last
        # A store in the order of keys has shown the siblings already: they are not after ``last``.
        yield from (self._passed(sibling) for sibling in self._siblings(folder) if sibling.key > last)
        self._asked.append(folder)
        self._back.extend(reversed(held))
        yield from self.level(folder)

    def _peek(self) -> ObjectInfo | None:
        """The next object, without taking it."""
        while True:
            if not self._back:
                found = next(self._rest, None)
                if found is None:
                    return None
                self._back.append(found)
            if not self._shown_before(self._back[-1].key):
                return self._back[-1]
            self._back.pop()

    def _shown_before(self, key: str) -> bool:
        if not self._asked:
            return False
        self._asked = [folder for folder in self._asked if key.startswith(folder[:-1])]
        return any(key < folder for folder in self._asked)

    def _passed(self, found: ObjectInfo) -> ObjectInfo:
        self._last = found.key
        return found
