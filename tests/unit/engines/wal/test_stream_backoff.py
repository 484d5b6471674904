"""A stream that got on and broke is tried again at once, however often it broke before."""

from __future__ import annotations

from pgbackup.core.lsn import Lsn
from pgbackup.engines.wal.progress import WalPosition
from pgbackup.engines.wal.stream_backoff import StreamBackoff


def after(backoff: StreamBackoff, position: WalPosition, *, permanent: bool = False) -> float:
    """The pause after a session that ended there, as the receiver asks for it."""
    if backoff.got_on(position):
        backoff.forget()
    return backoff.pause(permanent=permanent)


def test_what_does_not_begin_is_tried_less_and_less() -> None:
    backoff = StreamBackoff()
    pauses = [after(backoff, WalPosition()) for _ in range(10)]
    assert pauses[0] <= 0.65
    assert all(7 <= pause <= 13 for pause in pauses[6:])


def test_a_session_that_got_on_makes_what_failed_before_history() -> None:
    backoff = StreamBackoff()
    for lsn in range(1, 20):
        shipped = WalPosition(confirmed=Lsn(lsn), server_end=Lsn(1000), streaming=True)
        assert after(backoff, shipped) <= 0.65
    resting = WalPosition(confirmed=Lsn(19), server_end=Lsn(19), streaming=True)
    assert [after(backoff, resting) <= 0.65 for _ in range(5)] == [True] * 5


def test_one_that_only_begins_does_not() -> None:
    """A store that is full: what is stored is compared and confirmed again, and nothing new is taken."""
    backoff = StreamBackoff()
    full = WalPosition(confirmed=Lsn(500), server_end=Lsn(1000), streaming=True)
    pauses = [after(backoff, full) for _ in range(10)]
    assert all(pause >= 7 for pause in pauses[7:])


def test_what_people_have_to_mend_is_tried_once_a_minute_in_the_end() -> None:
    backoff = StreamBackoff()
    refused = WalPosition(problem="no such role", permanent=True)
    assert [after(backoff, refused, permanent=True) for _ in range(7)] == [2, 4, 8, 16, 32, 60, 60]
