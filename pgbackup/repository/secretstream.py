"""Encryption as WAL-G does it: libsodium's secretstream, XChaCha20-Poly1305 in chunks of 8192 plaintext bytes.

Layout: a header of 24 bytes, then chunks of 8192 + 17 bytes with tag 0, then one chunk of fewer than 8192 plaintext
bytes (perhaps none) with tag FINAL (WAL-G: internal/crypto/libsodium). WAL-G's reader accepts a stream without FINAL,
that is, one cut at a chunk's border; ours does not. The only importer of PyNaCl.

Its bindings take ``bytes`` chunk by chunk, so the cost in Python is one slice and one call for 8 KiB.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_ABYTES,
    crypto_secretstream_xchacha20poly1305_HEADERBYTES,
    crypto_secretstream_xchacha20poly1305_init_pull,
    crypto_secretstream_xchacha20poly1305_init_push,
    crypto_secretstream_xchacha20poly1305_KEYBYTES,
    crypto_secretstream_xchacha20poly1305_pull,
    crypto_secretstream_xchacha20poly1305_push,
    crypto_secretstream_xchacha20poly1305_state,
    crypto_secretstream_xchacha20poly1305_TAG_FINAL,
    crypto_secretstream_xchacha20poly1305_TAG_MESSAGE,
)
from nacl.exceptions import RuntimeError as SodiumError

KEY_BYTES: Final = crypto_secretstream_xchacha20poly1305_KEYBYTES
CHUNK_BYTES: Final = 8192
_MIN_TEXT_KEY_BYTES = 25
_HEADER: Final = crypto_secretstream_xchacha20poly1305_HEADERBYTES
_TAG: Final = crypto_secretstream_xchacha20poly1305_ABYTES
_STORED_CHUNK: Final = CHUNK_BYTES + _TAG
FIRST_CHUNK_BYTES: Final = _HEADER + _STORED_CHUNK
"""How much of a stored object holds its first whole chunk."""
_MESSAGE: Final = crypto_secretstream_xchacha20poly1305_TAG_MESSAGE
_FINAL: Final = crypto_secretstream_xchacha20poly1305_TAG_FINAL
_push = crypto_secretstream_xchacha20poly1305_push
_pull = crypto_secretstream_xchacha20poly1305_pull


class SecretStreamProblem(ValueError):
    """The bytes are not a secretstream of this key. ``at_start``: nothing could be decrypted at all."""

    def __init__(self, problem: str, *, at_start: bool = False) -> None:
        super().__init__(problem)
        self.at_start = at_start


class SecretStreamEncoder:
    """Encrypts one object: ``write`` what there is, then ``finish`` once; join what they return."""

    def __init__(self, key: bytes) -> None:
        """``key``: KEY_BYTES bytes."""
        self._state = crypto_secretstream_xchacha20poly1305_state()
        self._out = [crypto_secretstream_xchacha20poly1305_init_push(self._state, key)]
        self._rest = b""

    def write(self, data: bytes) -> bytes:
        """The stored bytes that are complete with ``data``; perhaps none."""
        if self._rest:
            missing = CHUNK_BYTES - len(self._rest)
            if len(data) < missing:
                self._rest += data
                return self._take()
            self._out.append(_push(self._state, self._rest + data[:missing]))
            begin = missing
        else:
            begin = 0
        state, full = self._state, begin + (len(data) - begin) // CHUNK_BYTES * CHUNK_BYTES
        self._out += [_push(state, data[i : i + CHUNK_BYTES]) for i in range(begin, full, CHUNK_BYTES)]
        self._rest = data[full:]
        return self._take()

    def finish(self) -> bytes:
        """The end of the stream, with the FINAL tag."""
        self._out.append(_push(self._state, self._rest, None, _FINAL))
        return self._take()

    def _take(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(out)


class SecretStreamDecoder:
    """Decrypts one object: ``write`` what was read, then ``finish`` once at its end. Raises SecretStreamProblem.

    What ``write`` returns is authentic, but only ``finish`` says that nothing is missing.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._state: crypto_secretstream_xchacha20poly1305_state | None = None
        self._rest = b""
        self._done_bytes = 0

    def write(self, data: bytes) -> bytes:
        """The plaintext of the chunks that are complete with ``data``; perhaps none."""
        if self._rest:
            data = self._rest + data
        begin = 0
        if self._state is None:
            if len(data) < _HEADER:
                self._rest = data
                return b""
            self._state = self._begin(data[:_HEADER])
            begin = _HEADER
        out = []
        end = begin + (len(data) - begin) // _STORED_CHUNK * _STORED_CHUNK
        for position in range(begin, end, _STORED_CHUNK):
            plain, tag = self._chunk(self._state, data[position : position + _STORED_CHUNK])
            if tag != _MESSAGE:
                raise SecretStreamProblem(f"a whole chunk has tag {tag}, which nobody writes")
            out.append(plain)
        self._rest = data[end:]
        return b"".join(out)

    def finish(self) -> bytes:
        """The last bytes of plaintext."""
        if self._state is None:
            problem = "it is empty" if not self._rest else f"its {len(self._rest)} bytes are too few to be encrypted"
            raise SecretStreamProblem(problem, at_start=True)
        if len(self._rest) < _TAG:
            raise SecretStreamProblem("it is cut short: the final encrypted chunk is missing")
        plain, tag = self._chunk(self._state, self._rest)
        if tag != _FINAL:
            raise SecretStreamProblem("it is cut short: the last encrypted chunk is not the final one")
        return plain

    def _begin(self, header: bytes) -> crypto_secretstream_xchacha20poly1305_state:
        state = crypto_secretstream_xchacha20poly1305_state()
        crypto_secretstream_xchacha20poly1305_init_pull(state, header, self._key)
        return state

    def _chunk(self, state: crypto_secretstream_xchacha20poly1305_state, stored: bytes) -> tuple[bytes, int]:
        try:
            plain, tag = _pull(state, stored)
        except SodiumError:
            at = self._done_bytes
            problem = f"the encrypted chunk at offset {at} of its content is not authentic, or cut short"
            raise SecretStreamProblem(problem, at_start=at == 0) from None
        self._done_bytes += len(plain)
        return plain, tag


def read_key(text: str, transform: str) -> bytes:
    """The key that WAL-G makes of the same text. Raises ValueError; the message never holds the text.

    ``none``: the text's own bytes, at least 25, padded with zero bytes or cut to 32. ``hex``, ``base64``: 32 bytes.
    """
    if transform == "none":
        key = text.encode("utf-8", "surrogateescape")
        if len(key) < _MIN_TEXT_KEY_BYTES:
            raise ValueError(f"a key needs at least {_MIN_TEXT_KEY_BYTES} bytes, this one has {len(key)}")
        return key[:KEY_BYTES].ljust(KEY_BYTES, b"\0")
    try:
        if transform == "hex":
            key = binascii.unhexlify(text.encode("utf-8", "replace"))
        elif transform == "base64":
            key = base64.b64decode(text.encode("utf-8", "replace"), validate=True)
        else:
            raise ValueError(f"no key transform is called {transform!r}; there are none, hex and base64")
    except binascii.Error:
        raise ValueError(f"the key is not {transform}") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"a {transform} key stands for {KEY_BYTES} bytes, this one for {len(key)}")
    return key
