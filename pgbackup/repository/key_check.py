"""A known text, stored encrypted: whoever comes with another key, or without one, is stopped before the first write.

Mixing keys, or plain and encrypted objects, in one prefix would make a part of it unreadable for good.
"""

from __future__ import annotations

from pgbackup.errors import ConfigError, CorruptObject, ObjectMissing
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.storage.base import ObjectStore

_PLAIN = b"pgbackup: this repository is not encrypted\n"
_SECRET = b"pgbackup: this repository is encrypted with this key\n"


def check_key(store: ObjectStore, codec: Codec) -> None:
    """Compare the configured key with the one the repository was begun with; the first one is remembered.

    Raises ConfigError when they differ.
    """
    ours = codec.with_compression(Compression("none", 0)).strict()
    text = _SECRET if codec.encrypted else _PLAIN
    try:
        stored = store.get(keys.KEY_CHECK)
    except ObjectMissing:
        if store.put_if_absent(keys.KEY_CHECK, ours.encode(text)):
            return
        stored = store.get(keys.KEY_CHECK)
    if stored == _PLAIN:
        if codec.encrypted:
            raise _mismatch("the repository is not encrypted, and an encryption key is configured")
        return
    if (why := _unreadable(stored, codec)) is not None:
        raise _mismatch(why)


def key_problem(store: ObjectStore, codec: Codec) -> str:
    """Why nothing can be read with this key, or without one; empty when it fits, or when nobody can say. For readers
    that have failed: a known text that is damaged must not stop who can read all the rest."""
    try:
        stored = store.get(keys.KEY_CHECK)
    except ObjectMissing:
        return ""
    return "" if stored == _PLAIN else _unreadable(stored, codec) or ""


def _unreadable(stored: bytes, codec: Codec) -> str | None:
    if not codec.encrypted:
        return "the repository is encrypted, and no encryption key is configured"
    try:
        text = codec.with_compression(Compression("none", 0)).strict().decode(keys.KEY_CHECK, stored, limit=1000)
    except CorruptObject:
        text = b""
    return None if text == _SECRET else "the encryption key is not the one that the repository was begun with"


def _mismatch(message: str) -> ConfigError:
    return ConfigError(
        message, hint="Set PGBACKUP_ENCRYPTION_KEY to the repository's key, or begin a new prefix for another key."
    )
