"""``pgbackup alerts``: try the channels that people are told through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pgbackup.cli.output import duration_text, emit_json, json_option, say
from pgbackup.errors import CheckFailed, ConfigError

if TYPE_CHECKING:
    from pgbackup.app import App


@click.group("alerts")
def command() -> None:
    """Alerts of `run`: through webhooks, Sentry and Apprise, as the settings say."""


@command.command("test")
@json_option
@click.pass_obj
def test(app: App, *, as_json: bool) -> None:
    """Send one test alert through every channel and show what each answered. Exit 1 when one failed."""
    from pgbackup.alerts.dispatch import try_channels

    built = app.alert_channels()
    if not built.testable and not built.problems:
        raise ConfigError(
            "no channel for alerts is configured",
            hint="Set SENTRY_DSN, PGBACKUP_WEBHOOK_URLS or PGBACKUP_HEARTBEAT_URL.",
        )
    tried = try_channels(built.testable)
    if as_json:
        emit_json({"channels": tried, "problems": [problem.summary for problem in built.problems]})
    else:
        for each in tried:
            mark, color = ("ok     ", "green") if each.ok else ("failure", "red")
            say(f"  {each.channel}: {each.answer} ({duration_text(each.seconds)})", mark=mark, color=color)
        for problem in built.problems:
            say(f"  {problem.summary}", mark="failure", color="red")
    for channel in built.testable:
        channel.close()
    failed = sum(not each.ok for each in tried) + len(built.problems)
    if failed:
        raise CheckFailed(f"{failed} of {len(tried) + len(built.problems)} channels do not work")
