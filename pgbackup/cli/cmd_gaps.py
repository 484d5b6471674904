"""``pgbackup gaps``: WAL that is lost, and the word of somebody who knows it."""

from __future__ import annotations

import getpass
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from pgbackup.cli.begun import require_begun
from pgbackup.cli.output import emit_json, json_option, say, table, time_text
from pgbackup.core.size_text import size_text
from pgbackup.errors import ConfigError

if TYPE_CHECKING:
    from pgbackup.app import App
    from pgbackup.core.known_gaps import KnownGap

_COLUMNS = ("gap", "from", "to", ">size", "noticed", "acknowledged", "reason")


@click.group("gaps", invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """List gaps: WAL that the server had removed before it was shipped. No moment inside a gap can be recovered.

    Where nothing at all is stored there is no repository, which is an error.
    """
    if context.invoked_subcommand is None:
        _list(context.obj, as_json=as_json)


@command.command("acknowledge")
@click.argument("names", nargs=-1, metavar="GAP...")
@click.option("--all", "everything", is_flag=True, help="Every gap.")
@click.option("--comment", default="", metavar="TEXT", help="What people should know of it.")
@json_option
@click.pass_obj
def acknowledge(app: App, *, names: tuple[str, ...], everything: bool, comment: str, as_json: bool) -> None:
    """Say that a loss is known, so that health is green again once a base backup after it is there."""
    from pgbackup.repository.gap_ledger import acknowledge_gap, read_gaps

    if not names and not everything:
        raise ConfigError("no gap is named", hint="Name them as `pgbackup gaps` shows them, or say --all.")
    with closing(app.open_store()) as store:
        gaps = read_gaps(store)
        if not gaps:
            require_begun(store)
        chosen = list(gaps) if everything else [gap for name in names for gap in _find(gaps, name)]
        for gap in chosen:
            acknowledge_gap(store, gap, moment=datetime.now(UTC), by=f"{_user()}@{app.settings.host}", comment=comment)
    if as_json:
        emit_json({"acknowledged": list(dict.fromkeys(gap.name for gap in chosen))})
    else:
        say("acknowledged: " + (", ".join(dict.fromkeys(gap.name for gap in chosen)) or "nothing"))


def _list(app: App, *, as_json: bool) -> None:
    from pgbackup.repository.gap_ledger import read_gaps

    with closing(app.open_readonly_store(ask_server=True)) as store:
        gaps = read_gaps(store)
        if not gaps:
            require_begun(store)
    if as_json:
        emit_json({"gaps": [{"name": gap.name, **_fields(gap)} for gap in gaps]})
        return
    if not gaps:
        say("no gaps")
        return
    zone = app.settings.tz
    rows = []
    for gap in gaps:
        word = time_text(gap.acknowledged, zone) if gap.acknowledged else "no"
        size = size_text(gap.end - gap.start)
        rows.append((gap.name, gap.start, gap.end, size, time_text(gap.found, zone), word, gap.reason))
    table(_COLUMNS, rows)


def _fields(gap: KnownGap) -> dict[str, object]:
    return {
        "timeline": gap.timeline,
        "start": gap.start,
        "end": gap.end,
        "size_bytes": gap.end - gap.start,
        "found": gap.found,
        "reason": gap.reason,
        "acknowledged": gap.acknowledged,
        "acknowledged_by": gap.acknowledged_by or None,
        "comment": gap.comment or None,
    }


def _find(gaps: tuple[KnownGap, ...], name: str) -> list[KnownGap]:
    """The gaps of a name: more than one where streaming could not go on after the first, and had to begin later yet."""
    found = [gap for gap in gaps if gap.name.upper() == name.upper()]
    if not found:
        known = ", ".join(gap.name for gap in gaps) or "none"
        raise ConfigError(f"there is no gap {name}", hint=f"Known gaps: {known}.")
    return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
