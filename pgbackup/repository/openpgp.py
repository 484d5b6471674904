"""Recognise an OpenPGP message by its first packets, so strictly that nothing else is ever taken for one.

A message to a public key begins with a packet for each recipient's key ("public-key encrypted session key", tag 1),
then come the encrypted data. Some other object may begin with the same byte by chance, an encrypted one of ours does in
3 of 256 cases; so the whole first packet must add up: its length, version, algorithm, and the lengths of the numbers in
it (RFC 4880, sections 4.2, 5.1 and 3.2; RFC 6637 for ECDH).
"""

from __future__ import annotations

from typing import Final

LOOK_BYTES: Final = 16 << 10
"""How much of an object ``is_message`` wants to see: more than any session key packet has."""

_SESSION_KEY: Final = 1
_NEXT_TAGS: Final = frozenset({1, 3, 9, 18, 20})
"""Another session key, or encrypted data: without integrity protection (9), with MDC (18), GnuPG's OCB (20)."""

_RSA, _RSA_ENCRYPT, _ELGAMAL, _ECDH = 1, 2, 16, 18
_FIXED_BYTES: Final = 10
"""Version, key ID and algorithm."""


def may_begin(begin: bytes) -> bool:
    """Whether the first byte is that of a session key packet: then more of the object is worth a look."""
    return begin[:1] in (b"\x84", b"\x85", b"\x86", b"\xc1")


def is_message(begin: bytes) -> bool:
    """Whether an object that begins like this is an OpenPGP message to a public key."""
    packet = _packet(begin)
    if packet is None:
        return False
    tag, start, end = packet
    if tag != _SESSION_KEY or end > len(begin) or not _is_session_key(begin[start:end]):
        return False
    behind = begin[end : end + 1]
    # Cut short right there it is still a message; gpg says what is wrong with it.
    return not behind or _tag(behind[0]) in _NEXT_TAGS


def _tag(first: int) -> int:
    if first & 0xC0 == 0xC0:
        return first & 0x3F
    return first >> 2 & 0x0F if first & 0x80 else -1


def _packet(data: bytes) -> tuple[int, int, int] | None:
    """(tag, begin and end of the body) of the packet at the begin of ``data``; None for one without a plain length."""
    if len(data) < 6:
        return None
    tag = _tag(data[0])
    if data[0] & 0xC0 == 0xC0:
        if data[1] < 192:
            return tag, 2, 2 + data[1]
        if data[1] < 224:
            return tag, 3, 3 + (data[1] - 192 << 8) + data[2] + 192
        return (tag, 6, 6 + int.from_bytes(data[2:6], "big")) if data[1] == 255 else None
    width = {0: 1, 1: 2, 2: 4}.get(data[0] & 3)
    if tag < 0 or width is None:
        return None
    return tag, 1 + width, 1 + width + int.from_bytes(data[1 : 1 + width], "big")


def _is_session_key(body: bytes) -> bool:
    """Whether the body of the packet adds up: version 3, a known algorithm, and as many bytes as its numbers say."""
    if len(body) < _FIXED_BYTES or body[0] != 3:
        return False
    algorithm, rest = body[9], body[_FIXED_BYTES:]
    if algorithm in (_RSA, _RSA_ENCRYPT):
        return _skip_number(rest) == b""
    if algorithm == _ELGAMAL:
        behind = _skip_number(rest)
        return behind is not None and _skip_number(behind) == b""
    if algorithm == _ECDH:
        wrapped = _skip_number(rest)
        return wrapped is not None and len(wrapped) > 1 and len(wrapped) == 1 + wrapped[0]
    return False


def _skip_number(data: bytes) -> bytes | None:
    """What is behind the multi-precision integer at the begin of ``data``; None when it is not all there."""
    if len(data) < 3:
        return None
    end = 2 + (int.from_bytes(data[:2], "big") + 7) // 8
    return data[end:] if 2 < end <= len(data) else None
