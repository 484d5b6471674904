"""Where a restore shall end, from the options of ``pgbackup restore``; and whether "10 minutes ago" can be believed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from pgbackup.cli.output import duration_text, time_text
from pgbackup.errors import RestoreError

if TYPE_CHECKING:
    from pgbackup.app import App
    from pgbackup.core.recovery_target import Target
    from pgbackup.storage.base import ObjectStore

_TARGETS = ("to_time", "to_lsn", "to_xid", "to_name", "immediate", "latest")
_XID = re.compile(r"[0-9]{1,20}")
_MOST_SKEW = timedelta(minutes=1)


def check_clock(store: ObjectStore, text: str) -> None:
    """A time "ago" is counted from this machine's clock: refuse it where the store's says something else.

    Raises RestoreError, and what the store raises.
    """
    from pgbackup.core.moment import is_ago

    if not is_ago(text) or (shown := store.clock()) is None:
        return
    now = datetime.now(UTC)
    skew = now - shown
    if abs(skew) <= _MOST_SKEW:
        return
    side = "ahead of" if skew > timedelta(0) else "behind"
    raise RestoreError(
        f"{text!r} may be another moment than you mean: the clock of this machine is "
        f"{duration_text(abs(skew).total_seconds())} {side} the store's",
        detail=f"here it is {time_text(now)}, there {time_text(shown)}",
        hint="Set the clock, or write the time out, as the server's clock showed it: --to '2026-01-31 14:05:00+01:00'.",
    )


def target_of(app: App, options: dict[str, Any]) -> Target:
    """The target that the options of the command name. Raises click.UsageError."""
    from pgbackup.core.lsn import Lsn
    from pgbackup.core.moment import parse_moment
    from pgbackup.core.recovery_target import Target

    zone_name = _zone_name(app, options["zone_name"])
    # An empty text is given as well: `--to "$UNSET"` must not become the end of the archive.
    given = [name for name in _TARGETS if options[name] not in (None, False)]
    if len(given) > 1:
        names = " and ".join("--" + name.removesuffix("_time").replace("_", "-") for name in given)
        raise click.UsageError(f"{names} are different targets: give one.")
    common: dict[str, Any] = {"exclusive": options["exclusive"], "action": options["target_action"]}
    try:
        match given:
            case ["to_time"]:
                moment = parse_moment(options["to_time"], datetime.now(UTC), _zone(zone_name))
                return Target("time", time=moment, **common)
            case ["to_lsn"]:
                return Target("lsn", lsn=Lsn.parse(options["to_lsn"]), **common)
            case ["to_xid"]:
                return Target("xid", xid=_xid(options["to_xid"]), **common)
            case ["to_name"]:
                return Target("name", name=_name(options["to_name"]), **common)
            case ["immediate"]:
                return Target("immediate", **common)
        return Target(**common)
    except ValueError as exc:
        raise click.UsageError(f"{exc}.") from exc


def _name(text: str) -> str:
    if not text:
        raise ValueError("the name of the restore point is empty")
    return text


def _xid(text: str) -> int:
    if not _XID.fullmatch(text.strip()):
        raise ValueError(f"not a transaction id: {text[:40]!r}")
    return int(text)


def _zone_name(app: App, given: str | None) -> str | None:
    """The zone for times without one: only one that somebody named, never a default."""
    if given is not None or "timezone" not in app.settings.model_fields_set:
        return given
    return app.settings.timezone


def _zone(name: str | None) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError) as exc:
        raise click.UsageError(f"no time zone is named {name!r}.") from exc
