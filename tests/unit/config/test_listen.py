"""Addresses to listen at, as people write them."""

from __future__ import annotations

import pytest

from pgbackup.config.listen import ListenAddress, parse_listen


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8778", "127.0.0.1", 8778),
        (" localhost:0 ", "localhost", 0),
        ("[::1]:8778", "::1", 8778),
        (":8778", "", 8778),
        ("*:8778", "", 8778),
    ],
)
def test_an_address(text: str, host: str, port: int) -> None:
    assert parse_listen(text) == ListenAddress(host, port)


@pytest.mark.parametrize("text", ["off", "OFF", "no", "none", ""])
def test_nowhere(text: str) -> None:
    assert parse_listen(text) is None


@pytest.mark.parametrize("text", ["8778", "localhost", "::1:8778", "host:70000", "http://localhost:1", "a b:1", "h:"])
def test_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        parse_listen(text)


def test_it_is_written_as_it_is_read() -> None:
    for text in ("127.0.0.1:8778", "[::1]:8778"):
        assert str(parse_listen(text)) == text
