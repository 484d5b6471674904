"""Progress off a terminal: one line per ten seconds, with rate and time left."""

from __future__ import annotations

import logging

from pgbackup.cli.progress import LoggedProgress, open_progress


def test_a_line_per_ten_seconds(caplog):
    caplog.set_level(logging.INFO)
    now = [0.0]
    progress = LoggedProgress(clock=lambda: now[0])
    progress.start("base backup", 100 << 20)
    for _ in range(40):
        now[0] += 0.5
        progress.advance(1 << 20)
    progress.finish()
    assert [record.getMessage() for record in caplog.records] == [
        "base backup: 20.0 MiB of about 100 MiB, 20%, about 40.0 s left at 2.0 MiB/s",
        "base backup: 40.0 MiB of about 100 MiB, 40%, about 30.0 s left at 2.0 MiB/s",
        "base backup: 40.0 MiB at 2.0 MiB/s, ended",
    ]


def test_nothing_is_said_of_an_estimate_that_was_wrong(caplog):
    caplog.set_level(logging.INFO)
    now = [0.0]
    progress = LoggedProgress(clock=lambda: now[0])
    for total in (None, 10):
        caplog.clear()
        progress.start("restore", total)
        now[0] += 10
        progress.advance(1 << 20)
        assert [record.getMessage() for record in caplog.records] == ["restore: 1.0 MiB at 102 KiB/s"]


def test_which_sink_fits():
    assert isinstance(open_progress(), LoggedProgress)
