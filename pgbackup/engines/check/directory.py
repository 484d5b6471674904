"""The server's data directory, where this machine shows it: is there anything that a base backup would leave out?"""

from __future__ import annotations

from pgbackup.engines.check.report import CheckReport
from pgbackup.postgres.linked_places import MOVE_BACK, linked_places
from pgbackup.postgres.session import ServerFacts
from pgbackup.postgres.visible_directory import visible_directory

_SHOWN = 3


def check_directory(report: CheckReport, facts: ServerFacts) -> None:
    """Add a line where the directory can be looked into; a sidecar mostly sees none, and a backup finds it all the
    same."""
    directory = visible_directory("", facts)
    if directory is None:
        return
    try:
        linked = linked_places(directory)
    except OSError:
        return
    if linked:
        more = f" and {len(linked) - _SHOWN} more" if len(linked) > _SHOWN else ""
        names = f"{', '.join(linked[:_SHOWN])}{more}"
        text = f"{names}: no file or folder, but a link; the server leaves it out of every base backup, which fails"
        report.failure("data directory", text, MOVE_BACK)
    else:
        report.ok("data directory", f"{directory}: nothing that is needed is a link")
