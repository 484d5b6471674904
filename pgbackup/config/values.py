"""Quantities as people write them in settings: durations, sizes, rates, percentages. Pure text <-> value.

A number without a unit is refused, because what it would mean differs from tool to tool; only 0 needs none. Every
``parse_`` raises ValueError with a message that says what would be right.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

_QUANTITY = re.compile(r"^(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z]*)$")

_SECONDS = {
    "ms": 0.001,
    "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip
_LARGEST_DURATION = timedelta(days=36525)

_BYTES = {
    "b": 1, "byte": 1, "bytes": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


def parse_duration(text: str) -> timedelta:
    """``10s``, ``0.2s``, ``5 min``, ``1h``, ``7d``, ``0``."""
    number, unit = _split(text, "a duration such as 10s, 5min, 1h or 7d")
    factor = _SECONDS.get(unit.lower())
    if factor is None and number != 0:
        raise ValueError("a duration needs a unit: ms, s, min, h, d or w")
    try:
        value = timedelta(seconds=number * (factor or 1))
    except OverflowError:
        value = timedelta.max
    if value > _LARGEST_DURATION:
        raise ValueError("this duration is longer than a century")
    return value


def format_duration(value: timedelta) -> str:
    """The shortest text that ``parse_duration`` reads back: ``5min``, ``0.2s``."""
    seconds = value.total_seconds()
    for unit, factor in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds and seconds % factor == 0:
            return f"{seconds / factor:.0f}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s" if seconds else "0"


def parse_size(text: str) -> int:
    """Bytes of ``256MiB`` (powers of 1024), ``1GB`` (powers of 1000), ``512 B``."""
    number, unit = _split(text, "a size such as 256MiB or 1GB")
    factor = _BYTES.get(unit.lower())
    if factor is None and number != 0:
        raise ValueError("a size needs a unit: B, kB, MB, GB, TB, or KiB, MiB, GiB, TiB")
    return round(number * (factor or 1))


def format_size(value: int) -> str:
    """The shortest text that ``parse_size`` reads back."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return f"{value}B"


def parse_rate(text: str) -> int:
    """Bytes per second of ``50MB/s``; the ``/s`` may be left out."""
    text = text.strip()
    amount = re.sub(r"\s*(/s|/sec|ps)$", "", text, flags=re.IGNORECASE)
    try:
        rate = parse_size(amount)
    except ValueError as exc:
        raise ValueError("not a rate such as 50MB/s or 10MiB/s") from exc
    if rate <= 0:
        raise ValueError("a rate must be more than 0; leave the setting out for no limit")
    return rate


def format_rate(value: int) -> str:
    return f"{format_size(value)}/s"


def parse_percent(text: str) -> float:
    """``85%`` or ``85`` as 85.0."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError as exc:
        raise ValueError("not a percentage such as 85%") from exc
    if not 0 <= value <= 100:
        raise ValueError("a percentage lies between 0% and 100%")
    return value


def parse_bool(text: str) -> bool:
    """yes/no, true/false, on/off, 1/0."""
    word = text.strip().lower()
    if word in {"yes", "true", "on", "1"}:
        return True
    if word in {"no", "false", "off", "0"}:
        return False
    raise ValueError("expected yes or no")


def _split(text: str, expected: str) -> tuple[float, str]:
    match = _QUANTITY.match(text.strip())
    if match is None:
        raise ValueError(f"not {expected}")
    number = float(match[1])
    if math.isinf(number):
        raise ValueError(f"not {expected}: the number is too large")
    return number, match[2]
