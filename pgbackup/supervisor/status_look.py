"""One look at everything for `pgbackup status`, without any process of ours, and with what `pgbackup run` has said.

The bucket and the server show most of it. What only the resident process can know, it has left in its book of alerts:
that its stream stands, that nobody takes its messages, and what only several looks show (an object is another one than
before, a backup is gone, the disk is full in an hour at this rate). That is believed until it says otherwise, and it
can make the verdict worse, never better. Nothing is written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pgbackup.config.settings import Settings
from pgbackup.core.alert_book import Alert, AlertBook
from pgbackup.core.findings import Finding, Severity
from pgbackup.core.health import evaluate
from pgbackup.core.health_facts import StreamView
from pgbackup.core.status import StatusSnapshot
from pgbackup.core.wal_clock import WalClock
from pgbackup.errors import CorruptObject, ObjectMissing, PgbackupError
from pgbackup.postgres.session import Session
from pgbackup.repository import keys
from pgbackup.repository.catalog_watch import CatalogWatch
from pgbackup.repository.codec import Codec
from pgbackup.repository.confirmed_notes import read_note
from pgbackup.storage.base import ObjectStore
from pgbackup.supervisor.from_settings import Schedules, limits
from pgbackup.supervisor.health_look import HealthLook, LookPorts
from pgbackup.supervisor.slot_guard import SlotGuard
from pgbackup.supervisor.status_snapshot import make_snapshot
from pgbackup.supervisor.waiting import health_without_server

_ONLY_THE_PROCESS_KNOWS = (
    "stream:",
    "worker:",
    "alert-channel:",
    "alert-config:",
    "backup:failing",
    "backup:vanished",
    "expire:",
    "lease:",
    "pg-wal:",
    "repository:replaced",
    "repository:unreadable",
    "slot:dropped",
    "slot:not-dropped",
    "slot:retention",
    "verify:failing",
    "wal:vanished",
)
_LOOKS = 4
_LOOK_SECONDS = 0.5


def look_once(
    settings: Settings, store: ObjectStore, codec: Codec, open_session: Callable[[], Session]
) -> StatusSnapshot:
    """What the verdict is now. Parts that cannot be looked at are findings, not errors."""
    others_expire = Schedules(settings).expire is None
    ports = LookPorts(
        store, CatalogWatch(store, codec), open_session, limits=limits(settings), others_expire=others_expire
    )
    looking = HealthLook(ports, WalClock())
    guard = SlotGuard(open_session, settings.slot)
    for left in reversed(range(_LOOKS)):
        stored = _stored_before(store)
        facts = replace(looking.look(), stream=stored)
        said, unread = _ask_book(store) if facts.repository is not None else ([], [])
        own = (*guard.look(), *_idle_slot(guard, settings.slot), *unread)
        now = datetime.now(UTC)
        health = evaluate(replace(facts, others=own), limits(settings), now)
        if said := worse_than(said, health.findings):
            health = evaluate(replace(facts, others=_with_told(own, said, settings)), limits(settings), now)
        if not left or not any(_may_be_under_way(finding) for finding in health.findings):
            break
        time.sleep(_LOOK_SECONDS)
    return make_snapshot(
        health,
        now,
        interval_seconds=settings.health_interval.total_seconds(),
        slot=guard.sample,
        since={alert.finding.key: alert.since for alert in said},
    )


def without_server(cause: PgbackupError, settings: Settings) -> StatusSnapshot:
    """The verdict when the server is down and the repository's URL has placeholders: neither can be looked at."""
    now = datetime.now(UTC)
    health = health_without_server(cause, limits(settings), now)
    return make_snapshot(health, now, interval_seconds=settings.health_interval.total_seconds())


def _stored_before(store: ObjectStore) -> StreamView | None:
    """To where WAL was in the bucket once, as whoever streamed noted it: nobody else knows that the end of it is gone
    while no process of ours runs. Read before the bucket is listed, for WAL is stored before it is noted."""
    try:
        note = read_note(store)
    except PgbackupError:
        return None  # what keeps the store from answering is told by the look
    return StreamView(streaming=False, timeline=note.timeline, stored=note.confirmed) if note is not None else None


def _may_be_under_way(finding: Finding) -> bool:
    """Several segments are uploaded at once: a later one may be there for a moment before an earlier one."""
    return finding.key.startswith("wal:hole:") and finding.severity is Severity.CRITICAL


def told_by_run(store: ObjectStore) -> list[Alert]:
    """The open alerts that only the resident process can see, as it stored them; without those that it did not see
    at its last look and that are only waited for to stay away. Raises CorruptObject and what the store raises."""
    book = AlertBook(repeat=timedelta(0))
    try:
        book.restore(json.loads(store.get(keys.ALERTS)))
    except ObjectMissing:
        return []
    except (ValueError, RecursionError) as exc:
        raise CorruptObject(keys.ALERTS, str(exc)) from exc
    current = [alert for alert in book.active() if alert.absent_since is None]
    return [alert for alert in current if alert.finding.key.startswith(_ONLY_THE_PROCESS_KNOWS)]


def worse_than(said: Iterable[Alert], own: Iterable[Finding]) -> list[Alert]:
    """The alerts that tell more than what was found here: what both see is told once, as the worse of the two."""
    seen: dict[str, int] = {}
    for finding in own:
        seen[finding.key] = max(finding.severity, seen.get(finding.key, 0))
    return [alert for alert in said if alert.finding.severity > seen.get(alert.finding.key, 0)]


def _ask_book(store: ObjectStore) -> tuple[list[Alert], list[Finding]]:
    """What `run` has told, and what keeps us from knowing it: then all may be well, or not."""
    try:
        return told_by_run(store), []
    except PgbackupError as exc:
        finding = Finding(
            "alerts:unreadable",
            Severity.WARNING,
            f"what `pgbackup run` sees for itself cannot be read: {exc}",
            "Look at its log and its /status.json; at the next alert it writes them anew.",
        )
        return [], [finding]


def _with_told(own: Iterable[Finding], said: Sequence[Alert], settings: Settings) -> tuple[Finding, ...]:
    told = {alert.finding.key: _as_told(alert, settings) for alert in said}
    return (*(finding for finding in own if finding.key not in told), *told.values())


def _as_told(alert: Alert, settings: Settings) -> Finding:
    since = alert.since.astimezone(settings.tz)
    return replace(alert.finding, hint=f"{alert.finding.hint} (`pgbackup run` says so since {since:%Y-%m-%d %H:%M %Z})")


def _idle_slot(guard: SlotGuard, slot: str) -> Iterator[Finding]:
    """A stream that reconnects is away for a moment; one that stays away does not run."""
    for look in range(_LOOKS):
        sample = guard.sample
        if sample is None or not sample.exists or sample.active:
            return
        if look < _LOOKS - 1:
            time.sleep(_LOOK_SECONDS)
            guard.look()
    yield Finding(
        "slot:idle",
        Severity.WARNING,
        f"nobody streams WAL from replication slot {slot}",
        "Is `pgbackup run` alive, and does its stream run? What is written from now on is on the server only.",
    )
