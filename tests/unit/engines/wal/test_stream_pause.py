"""Whoever holds the stream back, and was told that it stands, has it standing."""

from __future__ import annotations

import threading

import pytest

from pgbackup.engines.wal.stream_pause import StreamPause
from pgbackup.errors import SlotBusy


def test_who_begins_to_hold_as_a_session_begins_waits_for_it() -> None:
    pause, stop = StreamPause(), threading.Event()

    class HoldsNow(threading.Event):
        """Somebody begins to hold just after the look whether anybody does."""

        def is_set(self) -> bool:
            wanted = super().is_set()
            if not wanted and not held:
                held.append(self._hold())
            return wanted

        def _hold(self) -> bool:
            try:
                with pause.hold(0.0):
                    return True
            except SlotBusy:
                return False

    held: list[bool] = []
    pause._wanted = HoldsNow()
    with pause.session(stop):
        assert held == [False]


def test_a_hold_lasts_until_it_ends() -> None:
    pause, stop = StreamPause(), threading.Event()
    with pause.session(stop) as signal, pytest.raises(SlotBusy), pause.hold(0.05):
        assert signal.is_set()
    began = threading.Event()

    def run() -> None:
        with pause.session(stop):
            began.set()

    with pause.hold(1.0):
        thread = threading.Thread(target=run)
        thread.start()
        assert not began.wait(0.5)
    assert began.wait(5)
    thread.join(5)
