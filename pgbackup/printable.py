"""Text as it may be shown: what could speak to a terminal, or pretend to be a line of ours, becomes an escape.

Documents, keys, names of files, and what servers, stores and tools say are anybody's. Whoever shows text (a command, a
log, a page) passes it through here at the last moment; inside of pgbackup it stays what it is.
"""

from __future__ import annotations

import json


def printable(text: str) -> str:
    """The text on one line: a line's end is ``\\n``, an escape ``\\x1b``, what turns text around ``\\u202e``."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def printable_lines(text: str, indent: int) -> str:
    """The text with its own lines, each from the second on indented, so that none looks like a line of ours."""
    first, *others = text.split("\n")
    return "\n".join([printable(first.rstrip("\r")), *(_inner_line(line, indent) for line in others)])


def printable_json(document: str) -> str:
    """The same JSON document, with JSON's own escapes for what is not printable; line ends between values stay."""
    lines = document.split("\n")
    return "\n".join(line if line.isprintable() else "".join(map(_in_json, line)) for line in lines)


def _inner_line(line: str, indent: int) -> str:
    text = line.expandtabs().rstrip()
    bare = text.lstrip(" ")
    return " " * max(len(text) - len(bare), indent) + printable(bare) if bare else ""


def _in_json(sign: str) -> str:
    return sign if sign.isprintable() else json.dumps(sign)[1:-1]
