"""What the retention promises is missed as soon as it is gone, and what expiry removes is missed by nobody.

The promise is stated here without the code that keeps it, and what recovery gets to is walked by hand: for any history
of a cluster that expires as it goes on, with permanent backups and deltas, branches, gaps that are known, and a store
that lets some backups not go.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog
from pgbackup.core.health_facts import HealthFacts, RepositoryView
from pgbackup.core.known_gaps import KnownGap
from pgbackup.core.lsn import Lsn
from pgbackup.core.removed_wal import RemovedWal
from pgbackup.core.retention import RetentionPolicy, catalog_after, plan_expiry
from tests.made_catalog import SIZE, at
from tests.made_health import LIMITS, judged, server
from tests.made_history import HALF, START, History

Halves = set[tuple[int, int]]
"""(timeline, half of a segment)"""
POLICIES = st.builds(
    RetentionPolicy, backups=st.integers(0, 4), window=st.integers(0, 300).map(lambda h: timedelta(hours=h)),
    daily=st.integers(0, 2), weekly=st.integers(0, 2),
)  # fmt: skip


@dataclass(repr=False)
class Life(History):
    """A history in which the real plans are carried out. ``expired``: the WAL that went so: (timeline, number)."""

    policy: RetentionPolicy = field(default_factory=RetentionPolicy)
    expired: Halves = field(default_factory=set)
    removed_wal: RemovedWal = field(default_factory=RemovedWal)
    """The same, as expiry writes it down."""
    gaps: list[KnownGap] = field(default_factory=list)
    gone_histories: set[int] = field(default_factory=set)
    pinned: set[str] = field(default_factory=set)
    for_once: float = 0.2

    def live(self, steps: int) -> None:
        for _ in range(steps):
            super().live(1)
            self.choices.choices([self.expire, self.skip, lambda: None], [2, 0.3, 6])[0]()

    def expire(self) -> None:
        """By the policy, or for once by another one, as `delete retain 2` does it."""
        before = self.catalog()
        policy = self.policy
        if self.choices.random() < self.for_once:
            policy = RetentionPolicy(self.choices.randint(1, 3), timedelta(0))
        plan = plan_expiry(before, policy, self.now, UTC)
        if pinned := frozenset(b.name for b in plan.removed if self.choices.random() < 0.1):
            self.pinned |= pinned
            plan = plan_expiry(before, policy, self.now, UTC, pinned=pinned)
        after = catalog_after(before, plan)
        self.backups = list(after.backups)
        self.marks = [mark for mark in self.marks if mark not in plan.marks]
        self.removed_wal = self.removed_wal.and_also((r.timeline, r.begin, r.end) for r in plan.wal)
        self.expired |= _stored(before) - _stored(after)
        self.gone_histories |= set(plan.histories)

    def skip(self) -> None:
        """The server had removed WAL before it was shipped; the operator knows."""
        self.write(1 + self.position % 2)
        begin = self.position + self.position % 2
        self.write(begin - self.position + 2 * self.choices.randint(1, 3))
        self.lost |= {(self.timeline, number) for number in range(begin // 2, self.position // 2)}
        start, end = Lsn(begin * HALF), Lsn(self.position * HALF)
        self.gaps.append(KnownGap(self.timeline, start, end, self.now, "the slot was lost", self.now))
        self.write()

    def catalog(self, *, with_histories: bool = True) -> Catalog:
        made = super().catalog(with_histories=with_histories)
        left = {t: [n for n in numbers if (t, n) not in self.expired] for t, numbers in made.segments.items()}
        return replace(
            made,
            segments={t: numbers for t, numbers in left.items() if numbers},
            tails={s: end for s, end in made.tails.items() if (s.timeline, s.number) not in self.expired},
            histories={t: history for t, history in made.histories.items() if t not in self.gone_histories},
            known_gaps=tuple(self.gaps),
        )

    def told(self, catalog: Catalog) -> dict[str, str]:
        """What health says of backups and WAL: key -> in words."""
        end = Lsn(self.position * HALF)
        view = server(
            system_identifier=self.cluster, timeline=self.timeline, position=end, position_after=end, looked=self.now,
            clock=self.now,
        )  # fmt: skip
        facts = HealthFacts(
            RepositoryView(catalog, self.now, clock=self.now, removed_wal=self.removed_wal), view, wal_age=None
        )
        health = judged(facts, now=self.now, limits=replace(LIMITS, retention=self.policy))
        return {f.key: f.summary for f in health.findings if f.key.startswith(("wal:", "backup:"))}

    def reached(self, catalog: Catalog, since: datetime = START, names: Iterable[str] | None = None) -> Halves:
        """The halves written after ``since`` on the server's path to which recovery gets, from those backups."""
        path, stored = catalog.history(self.timeline), _stored(catalog)
        found: Halves = set()
        for each in catalog.backups:
            if names is not None and each.name not in names:
                continue
            if catalog.why_not_restorable(each) or not path.holds(each.timeline, each.stop_lsn):
                continue
            for half in range(each.start_lsn // HALF, self.position):
                segment = path.segment_for(half // 2, SIZE)
                tail = catalog.tails.get(segment, 0) if segment.timeline == self.timeline else 0
                whole = catalog.has(segment)
                if (segment.timeline, segment.number) not in stored or not (whole or half % 2 * HALF < tail):
                    break
                owner = path.owner(half * HALF)
                if half * HALF >= each.stop_lsn - HALF and self.written.get((owner, half), START) > since:
                    found.add((owner, half))
        return found

    def promised(self, catalog: Catalog) -> Halves:
        """What must be reached: each moment of the window, and every later one from what the policy counts."""
        whole = sorted((b for b in catalog.backups if not catalog.why_not_restorable(b)), key=_when, reverse=True)
        cutoff = self.now - self.policy.window
        wanted = [*whole[: max(self.policy.backups, 1)], *(b for b in whole if _when(b)[0] > cutoff)]
        for count, kind in ((self.policy.daily, "%Y-%m-%d"), (self.policy.weekly, "%G-%V")):
            newest = {f"{b.finished:{kind}}": b for b in reversed(whole)}
            wanted += [newest[period] for period in sorted(newest, reverse=True)[:count]]
        return self.reached(catalog, cutoff) | self.reached(catalog, names={b.name for b in wanted})

    def on_our_path(self, catalog: Catalog) -> bool:
        """Whether there is a backup for what the server writes; nothing else counts where there is none."""
        return not {"backup:other-branch", "backup:none"} & set(self.told(catalog))


def _when(each: Backup) -> tuple[datetime, str]:
    return each.finished, each.name


def _stored(catalog: Catalog) -> Halves:
    whole = {(timeline, number) for timeline, numbers in catalog.segments.items() for number in numbers}
    return whole | {(segment.timeline, segment.number) for segment in catalog.tails}


def _without(catalog: Catalog, gone: Halves) -> Catalog:
    segments = {t: [n for n in numbers if (t, n) not in gone] for t, numbers in catalog.segments.items()}
    tails = {s: end for s, end in catalog.tails.items() if (s.timeline, s.number) not in gone}
    return replace(catalog, segments={t: numbers for t, numbers in segments.items() if numbers}, tails=tails)


@st.composite
def lives(draw: st.DrawFn, *, upgrades: bool = True) -> Life:
    goes_back = draw(st.booleans())
    choices = random.Random(draw(st.integers(0, 1 << 32)))
    upgrades = draw(st.booleans()) and upgrades and not goes_back
    life = Life(choices, goes_back, upgrades, policy=draw(POLICIES))
    life.live(draw(st.integers(1, 40)))
    if draw(st.booleans()):
        life.expire()
    return life


@settings(max_examples=400, deadline=None)
@given(lives())
def test_what_expiry_removed_is_no_hole(life: Life) -> None:
    told = {key for key in life.told(life.catalog()) if key.startswith("wal:hole:")}
    assert told <= {f"wal:hole:{timeline}/{at(number)}" for timeline, number in life.lost - life.expired}


@settings(max_examples=400, deadline=None)
@given(lives(upgrades=False), st.randoms())
def test_what_is_promised_does_not_go_in_silence(life: Life, choices: random.Random) -> None:
    made = life.catalog()
    stored = sorted(_stored(made))
    if not stored or not life.on_our_path(made):
        return
    timeline, first = choices.choice(stored)
    last = first + choices.choice([0, 0, 0, 1, 2, 5, 10])
    after = _without(made, {(timeline, number) for number in range(first, last + 1)})
    if life.promised(made) - life.reached(after):
        assert life.told(after).items() - life.told(made).items()


def test_the_lives_reach_what_they_are_for() -> None:
    """Enough of them expire, have gaps and branches, and lose what was promised."""
    seen = dict.fromkeys(("expired", "stripped", "gaps", "forks", "pinned"), 0)
    for seed in range(100):
        life = Life(random.Random(seed), policy=RetentionPolicy(2, timedelta(days=3)))
        life.live(40)
        made = life.catalog()
        seen["expired"] += bool(life.expired)
        seen["gaps"] += bool(life.gaps)
        seen["forks"] += len(life.ancestors) > 1
        seen["pinned"] += bool(life.pinned)
        seen["stripped"] += any((b.timeline, b.stop_lsn // SIZE + 1) in life.expired for b in made.backups)
    assert min(seen.values()) > 15, seen
