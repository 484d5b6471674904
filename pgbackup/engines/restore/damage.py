"""What to do when a restore meets an object that is damaged, where whoever found it does not say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pgbackup.errors import CorruptObject
from pgbackup.repository import keys

_OF_BACKUP = (
    "Restore from another backup, with --backup; `pgbackup list` shows them, and `pgbackup verify` what is damaged."
)
_OF_WAL = "Choose a target before it, or a newer --backup; `pgbackup verify` names all that is damaged."


@contextmanager
def damage_advised() -> Iterator[None]:
    """Gives a CorruptObject that has no hint the one that fits."""
    try:
        yield
    except CorruptObject as exc:
        exc.hint = exc.hint or (_OF_BACKUP if exc.key.startswith(keys.BASEBACKUPS) else _OF_WAL)
        raise
