"""No text that somebody else wrote speaks to a terminal or pretends to be a line of ours, and JSON says the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbackup.printable import printable, printable_json, printable_lines

anything = st.text(st.characters(exclude_categories=[]), max_size=40)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe 5 µs", "größe 5 µs"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x9b2J\x7f", "\\x9b2J\\x7f"),
        ("\u202egnp.exe\u2028", "\\u202egnp.exe\\u2028"),
        ("\udce9", "\\udce9"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_is_not_printable_is_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(anything)
def test_nothing_else_is_left(text: str) -> None:
    assert printable(text).isprintable()
    assert printable_lines(text, 2).replace("\n", "").isprintable()
    assert printable_json(json.dumps([text], indent=2, ensure_ascii=False)).replace("\n", "").isprintable()


@given(anything)
def test_a_document_stays_what_it_is(text: str) -> None:
    document = {text: [text, 1, None], "ü": {"x": text}}
    assert json.loads(printable_json(json.dumps(document, indent=2, ensure_ascii=False))) == document
    assert "ü" in printable_json(json.dumps(document, ensure_ascii=False))


def test_lines_behind_the_first_are_indented() -> None:
    text = "it failed:\r\nall is well\x1b\n\tsaid the server\n    deep\n\nend"
    shown = "it failed:\n  all is well\\x1b\n        said the server\n    deep\n\n  end"
    assert printable_lines(text, 2) == shown
