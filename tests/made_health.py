"""Health facts made by hand: a green picture that each test spoils in one way; segments are one MiB."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta

from pgbackup.core.health import evaluate
from pgbackup.core.health_facts import Health, HealthFacts, HealthLimits, RepositoryView, ServerView
from pgbackup.core.schedule_spec import ScheduleSpec
from tests.made_catalog import at, backup, catalog, minutes

LIMITS = HealthLimits(schedule=ScheduleSpec.parse("every 1 hour"), tz=UTC, backup_grace=timedelta(minutes=10))
NOW = minutes(70)


def green_catalog(**more):
    """Two backups, the newest at minute 60, and all WAL to 21.5 segments on timeline 1."""
    return catalog(
        [backup(3.2, 4.5, minute=0), backup(10.1, 11.5, minute=60)], {1: range(3, 21)}, {(1, 21): 0.5}, **more
    )


def server(**more) -> ServerView:
    view = ServerView(
        system_identifier=1,
        timeline=1,
        history=None,
        in_recovery=False,
        position=at(21.5),
        position_after=at(21.5),
        looked=NOW,
        clock=NOW,
    )
    return replace(view, **more)


def green(**more) -> HealthFacts:
    facts = HealthFacts(
        repository=RepositoryView(green_catalog(), NOW, clock=NOW),
        server=server(),
        wal_age=timedelta(0),
        durable_moment=NOW,
    )
    return replace(facts, **more)


def judged(facts: HealthFacts, *, now=NOW, limits: HealthLimits = LIMITS) -> Health:
    return evaluate(facts, limits, now)


def keys(health: Health) -> list[str]:
    return [finding.key for finding in health.findings]
