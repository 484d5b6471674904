"""What waits for a channel: whatever fails in between, in the end everybody knows how things are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgbackup.alerts.notice_queue import MOST_TRIES, MOST_WAITING, NOTICE_PAUSE_SECONDS, NoticeQueue
from pgbackup.core.alert_book import Notice, NoticeKind
from tests.made_notice import notice

AFTER = {
    None: [NoticeKind.OPENED],
    NoticeKind.RESOLVED: [NoticeKind.OPENED],
    NoticeKind.OPENED: [NoticeKind.WORSENED, NoticeKind.REPEATED, NoticeKind.RESOLVED],
    NoticeKind.WORSENED: [NoticeKind.REPEATED, NoticeKind.RESOLVED],
    NoticeKind.REPEATED: [NoticeKind.WORSENED, NoticeKind.REPEATED, NoticeKind.RESOLVED],
}
"""What the book of alerts may say next of a key."""

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("tell"), st.sampled_from("ab"), st.integers(0, 2)),
        st.tuples(st.sampled_from(["deliver", "fail", "fail though taken"]), st.just(""), st.just(0)),
    ),
    max_size=60,
)


def keys(queue: NoticeQueue, now: float = 0, *, at_once: bool = False) -> list[str]:
    found = []
    while (entry := queue.take(now, at_once=at_once)) is not None:
        found.append(entry.notice.finding.key)
    return found


@given(STEPS)
def test_whoever_listens_knows_in_the_end_how_things_are(steps) -> None:
    queue, now = NoticeQueue(), 0.0
    truth: dict[str, Notice] = {}
    heard: dict[str, list[Notice]] = {"a": [], "b": []}
    for action, key, choice in steps:
        now += 1000
        if action == "tell":
            before = truth.get(key)
            kinds = AFTER[before.kind if before else None]
            truth[key] = notice(key, kinds[choice % len(kinds)], summary=f"at {now}")
            queue.put(truth[key])
            continue
        entry = queue.take(now)
        if entry is None:
            continue
        if action != "fail":
            heard[entry.notice.finding.key].append(entry.notice)
        if action == "deliver":
            queue.delivered()
        else:
            assert queue.put_back(entry, now)
    while (entry := queue.take(now, at_once=True)) is not None:
        heard[entry.notice.finding.key].append(entry.notice)
    for key, last in truth.items():
        if heard[key]:
            assert heard[key][-1].finding == last.finding or last.kind is NoticeKind.RESOLVED
            assert (heard[key][-1].kind is NoticeKind.RESOLVED) == (last.kind is NoticeKind.RESOLVED)
        else:
            assert last.kind is NoticeKind.RESOLVED, "nobody has to hear of what came and went"


def test_what_grew_worse_before_anybody_heard_of_it_is_told_as_opened() -> None:
    queue = NoticeQueue()
    queue.put(notice("a"))
    queue.put(notice("a", NoticeKind.WORSENED, summary="worse"))
    entry = queue.take(0)
    assert entry is not None
    assert (entry.notice.kind, entry.notice.finding.summary) == (NoticeKind.OPENED, "worse")


def test_what_reopened_before_the_end_was_told_is_resolved_later() -> None:
    queue = NoticeQueue()
    queue.put(notice("a"))
    assert keys(queue) == ["a"]
    for kind in (NoticeKind.RESOLVED, NoticeKind.OPENED, NoticeKind.RESOLVED):
        queue.put(notice("a", kind))
    entry = queue.take(0)
    assert entry is not None
    assert entry.notice.kind is NoticeKind.RESOLVED


def test_pauses_grow_and_end_at_their_bounds() -> None:
    queue, now, pauses = NoticeQueue(), 0.0, []
    queue.put(notice("a"))
    for _ in range(14):
        entry = queue.take(now)
        assert entry is not None
        queue.put_back(entry, now)
        assert queue.take(now) is None
        pause = queue.seconds_to_wait(now)
        assert pause is not None
        pauses.append(pause)
        now += pause
    assert pauses[:5] == [1, 2, 4, 8, 16]
    assert pauses[-1] == 600
    queue.put(notice("new"))
    assert (queue.seconds_to_wait(now - 600) or 0) <= 60, "what is new waits for a dead channel a minute at most"


def test_the_receiver_may_ask_for_quiet_but_not_for_ever() -> None:
    for asked, expected in ((30.0, 30), (10**9, 600), (None, 1)):
        queue = NoticeQueue()
        queue.put(notice("a"))
        entry = queue.take(0)
        assert entry is not None
        queue.put_back(entry, 0, asked=asked)
        queue.put(notice("new"))
        assert queue.seconds_to_wait(0) == expected


def test_at_the_end_no_pause_counts() -> None:
    queue = NoticeQueue()
    queue.put(notice("a"))
    entry = queue.take(0)
    assert entry is not None
    queue.put_back(entry, 0)
    queue.put(notice("b"))
    assert keys(queue, at_once=True) == ["a", "b"]


def test_what_waits_is_bounded_and_the_oldest_goes() -> None:
    queue = NoticeQueue()
    dropped = [queue.put(notice(str(number))) for number in range(MOST_WAITING + 2)]
    assert [d.finding.key for d in dropped if d] == ["0", "1"]
    assert len(queue) == MOST_WAITING


def test_a_notice_is_not_tried_for_ever() -> None:
    queue = NoticeQueue()
    queue.put(notice("a"))
    tries = 0
    while (entry := queue.take(0, at_once=True)) is not None:
        tries += 1
        queue.put_back(entry, 0)
    assert tries == MOST_TRIES


def test_what_is_refused_is_tried_again_at_the_longest_pause() -> None:
    queue = NoticeQueue(1.0)
    queue.put(notice("a"))
    now = 0.0
    for _ in range(3):
        entry = queue.take(now)
        assert entry is not None
        assert queue.put_back(entry, now, refused=True)
        assert queue.take(now + NOTICE_PAUSE_SECONDS - 1) is None
        now += NOTICE_PAUSE_SECONDS
