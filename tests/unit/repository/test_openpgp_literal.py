"""One packet of literal data in every form that the standard has, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.repository.openpgp_literal import LiteralProblem, literal_content
from tests.fix_gpg import in_parts

CONTENT = bytes(range(256)) * 40


def body(content: bytes, mode: bytes = b"b", name: bytes = b"") -> bytes:
    return mode + bytes((len(name),)) + name + b"time" + content


def read(message: bytes, size: int = 1000) -> bytes:
    return b"".join(literal_content(message[at : at + size] for at in range(0, len(message), size)))


def messages(content: bytes) -> dict[str, bytes]:
    inner = body(content)
    size = len(inner)
    found = {
        "new, five bytes of length": b"\xcb\xff" + size.to_bytes(4, "big") + inner,
        "new, in parts": b"\xcb" + in_parts(inner),
        "old, four bytes of length": b"\xae" + size.to_bytes(4, "big") + inner,
        "old, to the end": b"\xaf" + inner,
    }
    if size < 192:
        found["new, one byte of length"] = b"\xcb" + bytes((size,)) + inner
        found["old, one byte of length"] = b"\xac" + bytes((size,)) + inner
    elif size < 8384:
        found["new, two bytes of length"] = b"\xcb" + bytes(((size - 192 >> 8) + 192, size - 192 & 0xFF)) + inner
    if size < 65536:
        found["old, two bytes of length"] = b"\xad" + size.to_bytes(2, "big") + inner
    return found


@pytest.mark.parametrize("length", [0, 1, 100, 185, 186, 512, 5000, 8377, 8378, 70000])
def test_every_form_of_length(length: int) -> None:
    content = (CONTENT * 7)[:length]
    for form, message in messages(content).items():
        for size in (1, 7, 1 << 20):
            assert read(message, size) == content, form


@given(content=st.binary(max_size=3000), size=st.integers(1, 4000), name=st.binary(max_size=255))
def test_whatever_the_blocks_are(content: bytes, size: int, name: bytes) -> None:
    for mode in (b"b", b"t", b"u"):
        assert read(b"\xcb" + in_parts(body(content, mode, name)), size) == content


def test_what_ends_early_or_goes_on() -> None:
    for form, message in messages(CONTENT).items():
        if form == "old, to the end":
            continue
        for cut in (0, 1, 3, 8, len(message) // 2, len(message) - 1):
            with pytest.raises(LiteralProblem, match="cut short"):
                read(message[:cut])
        for more in (b"x", message):
            with pytest.raises(LiteralProblem, match="goes on"):
                read(message + more)


def test_what_is_no_literal_data() -> None:
    for message, problem in (
        (b"\x0b\x00", "not an OpenPGP packet"),
        (b"\xa3\x02" + bytes(20), "packet of kind 8"),
        (b"\x90\x0d" + bytes(13), "packet of kind 4"),
        (b"\xcb\x06m\0time", "no known mode"),
    ):
        with pytest.raises(LiteralProblem, match=problem):
            read(message)
