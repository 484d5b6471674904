"""``pgbackup status``: "am I safe?" in one screen, from the bucket and the server, whether or not `run` is alive."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING

import click

from pgbackup.cli.output import duration_text, emit_json, json_option, say, time_text, window_texts
from pgbackup.core.size_text import size_text
from pgbackup.errors import CheckFailed

if TYPE_CHECKING:
    from pgbackup.app import App
    from pgbackup.core.status import StatusSnapshot

_COLORS = {"ok": "green", "warning": "yellow", "critical": "red", "unknown": "red"}


@click.command("status")
@json_option
@click.pass_obj
def command(app: App, *, as_json: bool) -> None:
    """Say whether everything can be recovered: the verdict, from when to when, what would be lost, what is wrong.

    Looks at the bucket and at the server itself, so it tells the truth when `pgbackup run` is down as well. Exit 0
    when all is well, 1 when anything is wrong or cannot be seen.
    """
    from pgbackup.core.status_json import status_json

    snapshot = app.status()
    now = datetime.now(UTC)
    if as_json:
        emit_json(status_json(snapshot, now))
    else:
        _print(snapshot, app.settings.tz, now)
    if snapshot.verdict != "ok":
        count = len(snapshot.findings)
        raise CheckFailed(f"the verdict is {snapshot.verdict}: {count} finding{'' if count == 1 else 's'}")


def _print(status: StatusSnapshot, zone: tzinfo, now: datetime) -> None:
    verdict = str(status.verdict)
    say(mark=verdict.upper(), color=_COLORS[verdict], bold=True)
    for label, text in _lines(status, zone, now):
        say(f"  {label:<12} {text}")
    for opened in status.findings:
        finding = opened.finding
        word = finding.severity.word
        say()
        say(f"  {finding.summary}  [{finding.key}]", mark=word, color=_COLORS[word], indent=4)
        say(f"  {finding.hint}", indent=4)


def _lines(status: StatusSnapshot, zone: tzinfo, now: datetime) -> list[tuple[str, str]]:
    earliest, latest = status.earliest_recoverable, status.latest_recoverable
    if earliest is None:
        window = "nothing"
    else:
        since, until = window_texts(earliest, latest, zone)
        window = f"any moment from {since} to {until if latest else 'unknown'}"
    return [
        ("recoverable", window),
        ("would lose", _loss(status)),
        ("last backup", _backup(status, zone, now)),
        ("next backup", f"due {time_text(status.next_backup_due, zone)}"),
        ("verified", _verified(status, zone)),
        ("slot", _slot(status)),
        ("cluster", f"{status.system_identifier or 'unknown'}, timeline {status.timeline or 'unknown'}"),
    ]


def _loss(status: StatusSnapshot) -> str:
    lag = status.wal.lag_bytes
    if status.rpo_seconds is None:
        return "unknown" if lag is None else f"{size_text(lag)} of WAL, of unknown age"
    if not lag:
        return "nothing"
    return f"up to the last {duration_text(status.rpo_seconds)} ({size_text(lag)} of WAL)"


def _backup(status: StatusSnapshot, zone: tzinfo, now: datetime) -> str:
    last = status.last_backup
    if last is None:
        return "none that can be restored"
    age = duration_text((now - last.finished).total_seconds())
    size = size_text(last.raw_bytes) if last.raw_bytes else ""
    if last.stored_bytes:
        size += f", {size_text(last.stored_bytes)} stored"
    return f"{time_text(last.finished, zone)} ({age} ago), {last.name}, {size}"


def _slot(status: StatusSnapshot) -> str:
    retained, safe = status.slot_retained_bytes, status.slot_safe_bytes
    if retained is None:
        return "unknown"
    left = f", {size_text(safe)} more before it is lost" if safe is not None else ""
    return f"holds back {size_text(retained)} of WAL on the server{left}"


def _verified(status: StatusSnapshot, zone: tzinfo) -> str:
    run = status.last_verification
    if run is None:
        return "never"
    return f"{time_text(run.finished, zone)}: {run.summary if run.summary else 'whole' if run.ok else 'damaged'}"
