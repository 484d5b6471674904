"""One of something is no plural."""

from __future__ import annotations

from pgbackup.count_text import counted, is_or_are


def test_how_many() -> None:
    texts = [f"{counted(number, 'WAL segment')} {is_or_are(number)} missing" for number in (0, 1, 2)]
    assert texts == ["0 WAL segments are missing", "1 WAL segment is missing", "2 WAL segments are missing"]
    assert counted(2, "process") == "2 processes"
