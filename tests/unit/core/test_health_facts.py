"""What a verification says of something that was noticed: only what it read after that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.core.health_facts import LastRun, Noticed

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LONG_AGO = LastRun(NOON - 9 * HOUR, ok=True, began=NOON - 10 * HOUR, whole={"base_1": NOON - 10 * HOUR})
FROM_A_WRONG_CLOCK = LastRun(NOON + 9 * HOUR, ok=True, began=NOON + 8 * HOUR, whole={"base_1": NOON + 8 * HOUR})


def run_of(began: datetime | None, *, ok: bool = True) -> LastRun:
    return LastRun(NOON + 3 * HOUR, ok, began=began, whole={"base_1": began} if ok and began else {})


@pytest.mark.parametrize("recorded", [None, LONG_AGO, FROM_A_WRONG_CLOCK])
@pytest.mark.parametrize(
    ("run", "ended"),
    [
        (run_of(NOON + HOUR), True),
        (run_of(NOON + HOUR, ok=False), False),
        (run_of(NOON), False),
        (run_of(NOON - HOUR), False),
        (run_of(None), False),
        (None, False),
    ],
)
def test_only_what_was_read_after_it_was_noticed_counts(
    recorded: LastRun | None, run: LastRun | None, *, ended: bool
) -> None:
    noticed = Noticed(NOON, recorded)
    assert noticed.is_ended_by(run) == ended
    assert noticed.whole_since(run) == (("base_1",) if ended else ())


@pytest.mark.parametrize("recorded", [LONG_AGO, FROM_A_WRONG_CLOCK])
def test_what_was_recorded_by_then_never_counts(recorded: LastRun) -> None:
    noticed = Noticed(NOON, recorded)
    assert not noticed.is_ended_by(recorded)
    assert noticed.whole_since(recorded) == ()
