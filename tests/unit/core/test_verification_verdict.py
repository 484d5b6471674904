"""What stands after several verifications, whichever began and ended first: no chance takes damage back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pgbackup.core.health_facts import LastRun
from pgbackup.core.verification_verdict import Reading, with_reading

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
OLD, NEW, SEALED_SINCE = "base_1", "base_2", "base_3"
THERE = {OLD, NEW}
WHOLE = LastRun(NOON - HOUR, ok=True, summary="whole", began=NOON - 2 * HOUR, whole={NEW: NOON - 2 * HOUR})
DAMAGED = LastRun(NOON - HOUR, ok=False, summary="damage", damaged={NEW: NOON - HOUR}, began=NOON - 2 * HOUR)


def reading(backup: str = NEW, *, ok: bool = True) -> Reading:
    return Reading(backup, ok, f"{backup} read", NOON, is_newest=backup == NEW)


def after(read: Reading, known: LastRun | None, stored: LastRun | None) -> LastRun:
    run = with_reading(read, known, stored, THERE, NOON + HOUR)
    assert run is not None
    return run


def test_the_newest_is_the_verdict() -> None:
    first = after(reading(), None, None)
    assert first == LastRun(NOON + HOUR, ok=True, summary="base_2 read", began=NOON, whole={NEW: NOON})
    assert after(reading(), DAMAGED, DAMAGED) == first
    failed = after(reading(ok=False), WHOLE, WHOLE)
    assert (failed.ok, tuple(failed.damaged), failed.whole) == (False, (NEW,), {})


def test_an_older_one_stands_beside_the_verdict() -> None:
    assert with_reading(reading(OLD), None, None, THERE, NOON) is None
    beside = after(reading(OLD, ok=False), WHOLE, WHOLE)
    assert beside == replace(WHOLE, damaged={OLD: NOON + HOUR})
    assert after(reading(OLD, ok=False), beside, beside).damaged == {OLD: NOON + HOUR}, "once"
    mended = after(reading(OLD), beside, beside)
    assert mended == replace(WHOLE, whole={**WHOLE.whole, OLD: NOON})


def test_an_older_one_that_is_whole_mends_no_newest() -> None:
    assert not after(reading(OLD), DAMAGED, DAMAGED).ok


def test_damage_that_was_recorded_meanwhile_stands() -> None:
    for known in (None, WHOLE):
        stands = after(reading(), known, DAMAGED)
        assert (stands.ok, stands.summary, tuple(stands.damaged), stands.whole) == (False, "damage", (NEW,), {})
    older = replace(WHOLE, damaged={OLD: NOON - HOUR})
    assert tuple(after(reading(OLD), WHOLE, older).damaged) == (OLD,)
    of_ours = replace(WHOLE, damaged={NEW: NOON - HOUR})
    assert after(reading(), WHOLE, of_ours) == replace(of_ours, whole={}), "whoever read it as an older one"


def test_damage_is_recorded_over_any_verdict() -> None:
    meanwhile = replace(WHOLE, finished=NOON + HOUR, began=NOON + HOUR)
    for stored in (meanwhile, replace(meanwhile, began=NOON + timedelta(days=3650))):
        run = after(reading(ok=False), WHOLE, stored)
        assert (run.ok, tuple(run.damaged)) == (False, (NEW,))


def test_of_two_that_are_whole_the_one_that_is_recorded_stands() -> None:
    meanwhile = LastRun(NOON + HOUR, ok=True, began=NOON + HOUR / 2, whole={SEALED_SINCE: NOON + HOUR / 2})
    run = after(reading(), WHOLE, meanwhile)
    assert run == replace(meanwhile, whole={**meanwhile.whole, NEW: NOON})


def test_an_older_one_that_was_recorded_meanwhile_keeps_nobody_from_the_verdict() -> None:
    run = after(reading(), WHOLE, replace(WHOLE, damaged={OLD: NOON - HOUR}))
    assert (run.ok, run.finished, run.damaged) == (True, NOON + HOUR, {OLD: NOON - HOUR})


def test_what_is_gone_is_forgotten_and_what_came_since_is_not() -> None:
    known = replace(WHOLE, damaged={"base_0": NOON - HOUR}, whole={"base_0": NOON})
    run = after(reading(), known, known)
    assert (tuple(run.damaged), set(run.whole)) == ((), {NEW})
    since = replace(WHOLE, damaged={SEALED_SINCE: NOON - HOUR})
    assert tuple(after(reading(), WHOLE, since).damaged) == (SEALED_SINCE,)


names = st.sampled_from([OLD, NEW])
runs = st.none() | st.builds(
    LastRun, st.sampled_from([NOON - HOUR, NOON + HOUR]), st.booleans(), damaged=st.sets(names).map(dict.fromkeys)
)


@given(names, st.booleans(), runs, runs)
def test_no_order_takes_damage_back(backup: str, ok: bool, known: LastRun | None, stored: LastRun | None) -> None:
    run = with_reading(reading(backup, ok=ok), known, stored, THERE, NOON + HOUR)
    if run is None:
        assert stored is None
        return
    if not ok:
        assert backup in run.damaged
        assert not (run.ok and backup == NEW)
    if stored is not None and stored != known:
        assert set(stored.damaged) <= set(run.damaged)
    if stored is not None and not stored.ok and run.ok:
        assert ok
        assert backup == NEW, "only the newest ends it"
        assert known is not None
        assert not known.ok, "and what was recorded since it began stands"
