"""Histories of a cluster made at random, with the truth about every byte's time at hand."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from pgbackup.core.backup import Backup
from pgbackup.core.catalog import Catalog, TimeMark
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.retention import RetentionPolicy
from pgbackup.core.timeline import Ancestor, TimelineHistory
from tests.made_catalog import SIZE, backup

START = datetime(2026, 1, 1, tzinfo=UTC)
HALF = SIZE // 2


@dataclass(repr=False)
class History:
    """A cluster that lives: it writes WAL in halves of segments, takes backups, is promoted, and loses things. One that
    is upgraded goes on as another cluster, on timeline 1 and behind all WAL of the old one, under the same prefix."""

    choices: random.Random
    goes_back: bool = True
    upgrades: bool = False
    cluster: int = 1
    begin: int = 6
    """Where this cluster begins, in halves of a segment."""
    now: datetime = START
    timeline: int = 1
    position: int = 6
    """In halves of a segment."""
    ancestors: dict[int, tuple[Ancestor, ...]] = field(default_factory=lambda: {1: ()})
    written: dict[tuple[int, int], datetime] = field(default_factory=dict)
    """(timeline, half) -> when it was complete."""
    ends: dict[int, int] = field(default_factory=lambda: {1: 6})
    backups: list[Backup] = field(default_factory=list)
    marks: list[TimeMark] = field(default_factory=list)
    lost: set[tuple[int, int]] = field(default_factory=set)
    number: int = 0

    def live(self, steps: int) -> None:
        for _ in range(steps):
            self.now += timedelta(hours=self.choices.choice([1, 5, 12, 30, 80]))
            self.choices.choices(
                [self.write, self.back_up, self.promote, self.lose, self.go_back, self.upgrade],
                [8, 6, 1.5, 0.7, 0.7 * self.goes_back, 0.8 * self.upgrades],
            )[0]()

    def write(self, halves: int = 0) -> None:
        for _ in range(halves or self.choices.randint(1, 6)):
            self.written[self.timeline, self.position] = self.now
            self.position += 1
        self.ends[self.timeline] = self.position
        self.marks.append(TimeMark(self.now, self.timeline, Lsn(self.position * HALF)))

    def back_up(self) -> None:
        self.write(1)
        begin = self.position - self.choices.randint(0, 1)
        self.write()
        made = backup(begin / 2 + 0.1, self.position / 2 - 0.1, timeline=self.timeline)
        self.number += 1
        chance = self.choices.random()
        parents = [b for b in self.backups if b.timeline == self.timeline]
        # Chains of any length; a few links do not fit, as after a parent was replaced by another of its name.
        parent = self.choices.choice(parents) if parents and self.choices.random() < 0.4 else None
        self.backups.append(
            replace(
                made, name=f"{made.name}_{self.number}", system_identifier=self.cluster,
                finished=self.now, started=self.now - timedelta(minutes=30),
                modified=self.now, permanent=chance < 0.1, corrupt_files=("x",) if 0.1 < chance < 0.2 else (),
                problem="its documents are damaged" if 0.2 < chance < 0.3 else "",
                delta_of=parent.name if parent else None,
                delta_lsn=Lsn(parent.start_lsn + (self.choices.random() < 0.05)) if parent else None,
            )
        )  # fmt: skip

    def promote(self) -> None:
        """Recovery to an earlier position of the present timeline, or to its end, and a new timeline from there."""
        begin = int(max((a.fork for a in self.ancestors[self.timeline][-1:]), default=Lsn(self.begin * HALF))) // HALF
        fork = self.choices.randint(max(begin, self.position - 5), self.position)
        parent, self.timeline = self.timeline, max(self.ancestors) + 1
        line = Ancestor(parent, Lsn(fork * HALF))
        self.ancestors[self.timeline] = (*self.ancestors[parent], line)
        self.position = fork
        if fork % 2:
            # The child's copy of the fork's segment begins with the parent's bytes.
            self.written[self.timeline, fork - 1] = START
        self.ends[self.timeline] = fork
        self.write()

    def upgrade(self) -> None:
        """As pg_upgrade does it: on timeline 1, in a segment behind the last, the rest of which was never archived."""
        self.cluster += 1
        self.timeline = 1
        self.position = self.begin = (max(self.ends.values()) // 2 + 2) * 2
        self.write()

    def go_back(self) -> None:
        """The old primary goes on, after a failover that was none."""
        self.timeline = self.choices.choice(sorted(self.ancestors))
        self.position = self.ends[self.timeline]

    def lose(self) -> None:
        whole = sorted({(t, half // 2) for t, half in self.written})
        if whole:
            self.lost.add(self.choices.choice(whole))

    def catalog(self, *, with_histories: bool = True) -> Catalog:
        """As a listing shows it. A cluster that never goes back proves without marks what is over."""
        segments: dict[int, list[int]] = {}
        tails = {}
        for timeline, number in sorted({(t, half // 2) for t, half in self.written}):
            if (timeline, number) in self.lost:
                continue
            if (timeline, number * 2 + 1) in self.written:
                segments.setdefault(timeline, []).append(number)
            else:
                tails[SegmentName(timeline, number, SIZE)] = HALF
        histories = {t: TimelineHistory(t, lines) for t, lines in self.ancestors.items() if lines and with_histories}
        marks = tuple(self.marks) if self.goes_back else ()
        return Catalog(SIZE, tuple(self.backups), segments, tails, histories, marks)

    def reached(self, catalog: Catalog, since: datetime) -> set[tuple[int, int]]:
        """The halves written after that to which recovery gets: (owner, half)."""
        found = set()
        for each in catalog.recoverable():
            history = catalog.history(each.timeline)
            for half in range(-(-each.start // HALF), each.end // HALF):
                owner = history.owner(half * HALF)
                if self.written.get((owner, half), START) > since:
                    found.add((owner, half))
        return found


@st.composite
def histories(draw: st.DrawFn) -> History:
    goes_back = draw(st.booleans())
    history = History(random.Random(draw(st.integers(0, 1 << 32))), goes_back, not goes_back and draw(st.booleans()))
    history.live(draw(st.integers(1, 40)))
    return history


policies = st.builds(
    RetentionPolicy, backups=st.integers(0, 4), window=st.integers(0, 400).map(lambda h: timedelta(hours=h)),
    daily=st.integers(0, 2), weekly=st.integers(0, 2), monthly=st.integers(0, 1), min_restorable=st.integers(1, 2),
)  # fmt: skip
