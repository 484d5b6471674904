"""``pgbackup expire``: what the retention policy keeps and removes, and why; removed only when asked to."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import click

from pgbackup.cli.expiry_output import expiry_document, print_plan, print_report, raise_refusal
from pgbackup.cli.output import emit_json, json_option, say
from pgbackup.errors import CheckFailed

if TYPE_CHECKING:
    from pgbackup.engines.expire.expire import ExpiryRequest


class OpensExpiry(Protocol):
    """What this command needs of the App."""

    def open_expiry(self, *, apply: bool, accept_missing: bool) -> AbstractContextManager[ExpiryRequest]:
        """The repository, read-only unless ``apply``, with the policy and the lease."""


@click.command("expire")
@click.option("--apply", is_flag=True, help="Remove what the plan says; without it nothing is removed.")
@click.option("--accept-missing", is_flag=True, help="Backups that are gone since the last expiry were meant to go.")
@json_option
@click.pass_obj
def command(app: OpensExpiry, *, apply: bool, accept_missing: bool, as_json: bool) -> None:
    """Show which backups and which WAL the retention policy keeps and removes, and why.

    With --apply it removes them: first the seal of a backup, then its objects, then WAL that nothing needs any more.
    Exit 1 when expiry refuses, because the repository does not look healthy, or ended early.
    """
    from pgbackup.engines.expire.expire import look, measure, remember_damaged, run_expiry

    with app.open_expiry(apply=apply, accept_missing=accept_missing) as request:
        seen = look(request)
        found = measure(request, seen)
        if not as_json:
            print_plan(seen, found, request.tz)
        report = run_expiry(request, seen) if apply and not seen.plan.refusal else None
        if apply and seen.plan.refusal:
            remember_damaged(request, seen)
    if as_json:
        emit_json(expiry_document(seen, found, report))
    raise_refusal(seen.plan)
    if report is None:
        if not as_json:
            is_empty = seen.plan.is_empty and not seen.unfinished
            say("nothing to remove" if is_empty else "nothing was removed; --apply removes")
        return
    if not as_json:
        print_report(report)
    if report.stopped:
        raise CheckFailed(
            f"expiry ended early: {report.stopped}",
            hint="Run pgbackup expire again: it looks anew, and goes on where this one ended.",
        )
