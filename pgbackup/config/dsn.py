"""Connection strings of libpq, as far as settings look into them: their shape, and the passwords to hide.

Whether libpq accepts one is for libpq to say; this needs no library.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_SCHEMES = ("postgresql://", "postgres://")
_PAIRS = re.compile(r"^(\s*\w+\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*))*\s*$", re.DOTALL)
_PASSWORD_PAIR = re.compile(r"\b\w*password\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)+))", re.DOTALL)
_PASSWORD_PARAMETER = re.compile(r"[?&]\w*password=([^&]*)")
_USER_PART = re.compile(r"^\w+://[^:/?#@]*:([^/?#]*)@")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def check_shape(text: str) -> None:
    """Raises ValueError, without quoting the text, for what libpq would not even begin to read."""
    if text.startswith(_SCHEMES):
        return
    if not _PAIRS.match(text):
        raise ValueError("expected postgresql://user@host/database or key=value pairs, as libpq reads them")


def passwords(text: str) -> list[str]:
    """Every password in a connection string, as written and as meant."""
    if text.startswith(_SCHEMES):
        user_part = _USER_PART.match(text)
        written = ([user_part[1]] if user_part else []) + _PASSWORD_PARAMETER.findall(text)
        return [form for word in written if word for form in (word, unquote(word))]
    written = [quoted or bare for quoted, bare in _PASSWORD_PAIR.findall(text)]
    return [form for word in written if word for form in (word, _ESCAPE.sub(r"\1", word))]
