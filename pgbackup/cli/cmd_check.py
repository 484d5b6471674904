"""``pgbackup check``: a preflight of server, repository and settings, a named line for each thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pgbackup.cli.output import emit_json, json_option, say, table
from pgbackup.errors import CheckFailed

if TYPE_CHECKING:
    from pgbackup.app import App
    from pgbackup.engines.check.report import CheckReport

_SIGNS = {"ok": "ok", "warning": "WARNING", "failure": "FAILURE"}


@click.command("check")
@click.option("--show-config", is_flag=True, help="Show every setting, where it came from, and no secret.")
@json_option
@click.pass_obj
def command(app: App, *, show_config: bool, as_json: bool) -> None:
    """Try everything that backups need, and say what is missing.

    Connects to the server in both ways, writes and removes test objects in the repository. Exit 1 when anything
    failed; warnings alone are exit 0. What became of variables of WAL-E and WAL-G is shown as well.
    """
    from pgbackup.config.table import effective

    settings = effective(app.settings) if show_config else None
    report = app.check()
    if as_json:
        inherited = app.settings.inherited
        document = {"ok": report.count("failure") == 0, "checks": report.lines, "inherited": inherited}
        emit_json(document if settings is None else {**document, "settings": settings})
    else:
        if settings is not None:
            table(["setting", "value", "from"], [(each.variable, each.value or "-", each.origin) for each in settings])
            if app.settings.inherited:
                say()
                rows = [(each.variable, each.use, each.text) for each in app.settings.inherited]
                table(["of WAL-E or WAL-G", "is", "how"], rows)
            say()
        _print_report(report)
    failures = report.count("failure")
    if failures:
        raise CheckFailed(f"{failures} of {len(report.lines)} checks failed")


def _print_report(report: CheckReport) -> None:
    width = max(len(line.name) for line in report.lines)
    for line in report.lines:
        color = {"ok": "green", "warning": "yellow", "failure": "red"}[line.status]
        column = width + 11
        say(f" {line.name:<{width}}  {line.text}", mark=f"{_SIGNS[line.status]:<8}", color=color, indent=column)
        if line.hint and line.status != "ok":
            say(f"{'':{column}}hint: {line.hint}", indent=column)
    warnings, failures = report.count("warning"), report.count("failure")
    word = "warning" if warnings == 1 else "warnings"
    say()
    say(f"{len(report.lines)} checks: {failures} failed, {warnings} {word}")
