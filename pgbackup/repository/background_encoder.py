"""An encoder whose work is done by a thread of its own, for compressors that bring none.

``write`` returns what is ready by now, as zstd's own threads do it; the order is that of the writes. Memory:
QUEUE_BLOCKS blocks of BLOCK_BYTES, as they were written and as they were encoded, and the block being filled.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from pgbackup.repository.encoder import Encoder

BLOCK_BYTES = 1 << 20
QUEUE_BLOCKS = 8


class BackgroundEncoder:
    """Hands blocks on to ``encoder`` in another thread, which ends with ``finish``, or with this object."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._pieces: list[bytes | memoryview] = []
        self._piece_bytes = 0
        self._encoded: deque[Future[bytes]] = deque()

    def write(self, data: bytes | memoryview) -> bytes:
        """Take more; ``data`` must not change any more. Waits while the queue is full. Raises what encoding raised."""
        self._pieces.append(data)
        self._piece_bytes += len(data)
        if self._piece_bytes < BLOCK_BYTES:
            return b""
        self._hand_on()
        ready = []
        while self._encoded and (len(self._encoded) > QUEUE_BLOCKS or self._encoded[0].done()):
            ready.append(self._encoded.popleft().result())
        return b"".join(ready)

    def finish(self) -> bytes:
        self._hand_on()
        self._encoded.append(self._thread.submit(self._encoder.finish))
        self._thread.shutdown(wait=False)
        return b"".join([encoded.result() for encoded in self._encoded])

    def _hand_on(self) -> None:
        block = b"".join(self._pieces)
        self._pieces.clear()
        self._piece_bytes = 0
        self._encoded.append(self._thread.submit(self._encoder.write, block))
