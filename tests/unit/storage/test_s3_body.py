"""Bodies as they are handed to boto3."""

from __future__ import annotations

import pytest

from pgbackup.storage.s3_body import TLS_BLOCK_BYTES, as_body

ASKED = 16 << 10


@pytest.mark.parametrize(("over_tls", "block_bytes"), [(True, TLS_BLOCK_BYTES), (False, ASKED)])
def test_what_a_connection_is_given_at_once(over_tls: bool, block_bytes: int) -> None:
    data = bytes(range(256)) * 4096 + b"rest"
    body = as_body(data, over_tls=over_tls)
    blocks = list(iter(lambda: body.read(ASKED), b""))
    assert {len(block) for block in blocks[:-1]} == {block_bytes}
    assert b"".join(blocks) == data


@pytest.mark.parametrize("over_tls", [True, False])
def test_it_is_a_file_all_the_same(over_tls: bool) -> None:
    body = as_body(b"0123456789", over_tls=over_tls)
    assert body.read(0) == b""
    body.seek(7)
    assert body.tell() == 7
    assert body.read() == b"789"
    body.seek(0)
    assert body.read(-1) == b"0123456789"
