"""What commands print: lines, tables and JSON, and times; the same value either way.

Nothing else prints, so that no command can forget that texts are anybody's: they are shown as ``printable`` has them.
JSON is one document per command. Its times are ISO 8601 with zone, LSNs are text, sizes are bytes, durations seconds.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum
from pathlib import PurePath

import click

from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.printable import printable, printable_json, printable_lines

_WRITTEN = "pgbackup.json_written"
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")


def say(
    text: str = "",
    *,
    mark: str = "",
    color: str | None = None,
    bold: bool = False,
    err: bool = False,
    indent: int | None = None,
) -> None:
    """Print one line, with a coloured mark in front. With an ``indent``, the text may have lines of its own: those
    after the first are indented by so much at least."""
    shown = printable(text) if indent is None else printable_lines(text, indent)
    click.echo((click.style(printable(mark), fg=color, bold=bold) if mark else "") + shown, err=err)


def say_document(text: str) -> None:
    """Print JSON."""
    click.echo(printable_json(text))


def emit_json(value: object) -> None:
    """Print the command's one JSON document."""
    say_document(json.dumps(plain(value), indent=2, ensure_ascii=False))
    context = click.get_current_context(silent=True)
    if context is not None:
        context.find_root().meta[_WRITTEN] = True


def json_was_emitted(context: click.Context | None) -> bool:
    """Whether the command that ran in ``context`` has printed its document, so that an error must not print another."""
    return context is not None and context.find_root().meta.get(_WRITTEN, False) is True


def plain(value: object) -> object:
    """The value as JSON knows it. Raises TypeError for what has no agreed form, secrets among it."""
    if isinstance(value, Lsn | SegmentName | PurePath):
        return str(value)
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes):
        return [plain(item) for item in value]
    raise TypeError(f"no JSON form for {type(value).__name__}")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print aligned columns, numbers and sizes to the right when the column's name begins with ``>``."""
    names = [column.removeprefix(">") for column in columns]
    right = [column.startswith(">") for column in columns]
    cells = [names, *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    for row in cells:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        say("  ".join(padded).rstrip())


def time_text(moment: datetime | None, zone: tzinfo = UTC, *, up: bool = False) -> str:
    """``2026-03-01 02:00:05+00:00``, to the second, or a dash; ``up``: never earlier than it is."""
    if moment is not None and up and moment.microsecond:
        moment += timedelta(seconds=1)
    return moment.astimezone(zone).isoformat(sep=" ", timespec="seconds") if moment else "-"


def window_texts(start: datetime | None, end: datetime | None, zone: tzinfo) -> tuple[str, str]:
    """Begin and end of a window, to the second and inside of it; in full where it holds no whole second."""
    first, last = time_text(start, zone, up=True), time_text(end, zone)
    if start is None or end is None or datetime.fromisoformat(first) <= datetime.fromisoformat(last):
        return first, last
    return start.astimezone(zone).isoformat(sep=" "), end.astimezone(zone).isoformat(sep=" ")


def duration_text(seconds: float) -> str:
    """``1 h 02 min``, ``4 min 10 s``, ``3.2 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"
