"""What `pgbackup check` finds: named lines, each ok, a warning or a failure, with a hint what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from pgbackup.errors import PgbackupError
from pgbackup.logs import redact

Status = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One finding; names are stable, texts are for people."""

    name: str
    status: Status
    text: str
    hint: str = ""


@dataclass
class CheckReport:
    """Findings in the order in which they were made; texts may quote a server or a library, so no secret stays."""

    lines: list[CheckLine] = field(default_factory=list)

    def ok(self, name: str, text: str) -> None:
        self._add(name, "ok", text)

    def warning(self, name: str, text: str, hint: str = "") -> None:
        self._add(name, "warning", text, hint)

    def failure(self, name: str, text: str, hint: str = "") -> None:
        self._add(name, "failure", text, hint)

    @contextmanager
    def attempt(self, name: str, *, failing: Status = "failure") -> Iterator[None]:
        """What raises inside is the finding; the checks after it go on."""
        try:
            yield
        except PgbackupError as exc:
            self._add(name, failing, str(exc), exc.hint)

    def count(self, status: Status) -> int:
        return sum(line.status == status for line in self.lines)

    def _add(self, name: str, status: Status, text: str, hint: str = "") -> None:
        self.lines.append(CheckLine(name, status, redact(text), redact(hint)))
