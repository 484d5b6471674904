"""How many there are of something, as people read it, the same everywhere."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """``1 finding``, ``2 findings``, ``0 WAL segments``; for nouns that take an s, or an es after one."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"


def is_or_are(number: int) -> str:
    return "is" if number == 1 else "are"
