"""What turns content into what is stored: compressors, encryption, and what is put together of them."""

from __future__ import annotations

from typing import Protocol


class Encoder(Protocol):
    """Makes one object: join what ``write`` and then one ``finish`` return."""

    def write(self, data: bytes | memoryview, /) -> bytes: ...

    def finish(self) -> bytes: ...
