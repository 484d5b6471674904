"""Before the server has answered once: the repository's URL has placeholders that only it can fill in.

Nothing can be backed up meanwhile, so people are told as at any other time, and the pages show it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from pgbackup.core.health import evaluate
from pgbackup.core.health_facts import Health, HealthFacts, HealthLimits
from pgbackup.errors import ConfigError, PgbackupError, PostgresError
from pgbackup.supervisor.alert_desk import AlertDesk
from pgbackup.supervisor.latest_status import LatestStatus
from pgbackup.supervisor.status_snapshot import make_snapshot

_RETRY_SECONDS = 2.0
_log = logging.getLogger(__name__)


def wait_for_server(
    resolve: Callable[[], object],
    stop: threading.Event,
    desk: AlertDesk,
    status: LatestStatus,
    limits: HealthLimits,
) -> bool:
    """Call ``resolve`` until the server answers it. False when told to stop first. Raises its other ConfigErrors."""
    while not stop.is_set():
        try:
            resolve()
        except ConfigError as exc:
            cause = exc.__cause__
            if not isinstance(cause, PostgresError):
                raise
            # A role that is still to be made as well: the process stays up and readable, and people are told.
            _log.info("waiting for the server, which the repository's URL needs: %s", exc.detail)
            now = datetime.now(UTC)
            health = health_without_server(cause, limits, now)
            desk.round(health, now)
            status.publish(make_snapshot(health, now, interval_seconds=_RETRY_SECONDS))
            stop.wait(_RETRY_SECONDS)
        else:
            return True
    return False


def health_without_server(cause: PgbackupError, limits: HealthLimits, now: datetime) -> Health:
    """The verdict when the server did not answer, for ``cause``, what the repository's URL needs."""
    facts = HealthFacts(None, None, "its URL has placeholders that only the server fills in", str(cause))
    return evaluate(facts, limits, now)
