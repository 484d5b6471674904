"""What commands print: JSON with agreed forms, aligned tables, sizes and times."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr

from pgbackup.cli.output import duration_text, emit_json, plain, say, table, time_text, window_texts
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.core.size_text import size_text


@dataclass(frozen=True, slots=True)
class Thing:
    lsn: Lsn
    segment: SegmentName
    when: datetime
    took: timedelta


def test_json_forms(capsys):
    when = datetime(2026, 3, 1, 2, tzinfo=ZoneInfo("Europe/Berlin"))
    thing = Thing(Lsn(0x16_0000_0028), SegmentName(1, 5), when, timedelta(seconds=1.5))
    emit_json({"thing": thing, "many": (1, None, True), "path": Path("/x"), 5: {"ü"}})
    assert json.loads(capsys.readouterr().out) == {
        "thing": {
            "lsn": "16/28", "segment": "000000010000000000000005", "when": "2026-03-01T01:00:00+00:00", "took": 1.5,
        },
        "many": [1, None, True],
        "path": "/x",
        "5": ["ü"],
    }  # fmt: skip


@pytest.mark.parametrize("value", [SecretStr("hunter2"), b"bytes", object(), Thing])
def test_what_has_no_agreed_form_is_refused(value):
    with pytest.raises(TypeError, match="no JSON form"):
        plain(value)


def test_tables_are_aligned_and_show_brackets_as_they_are(capsys):
    table(["name", ">size"], [("a", 5), ("[red]long[/red]", "1234567")])
    assert capsys.readouterr().out == "name                size\na                      5\n[red]long[/red]  1234567\n"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (1 << 20, "1.0 MiB"), (123 << 20, "123 MiB"), (5 << 50, "5.0 PiB")],
)
def test_sizes(size, text):
    assert size_text(size) == text


def test_times():
    moment = datetime(2026, 3, 1, 2, 0, 5, 999, tzinfo=UTC)
    assert time_text(moment) == "2026-03-01 02:00:05+00:00"
    assert time_text(moment, ZoneInfo("Asia/Tokyo")) == "2026-03-01 11:00:05+09:00"
    assert time_text(None) == "-"
    assert time_text(moment, up=True) == "2026-03-01 02:00:06+00:00"
    assert time_text(moment.replace(microsecond=0), up=True) == "2026-03-01 02:00:05+00:00"
    assert [duration_text(seconds) for seconds in (3.21, 250, 3720)] == ["3.2 s", "4 min 10 s", "1 h 02 min"]


def test_a_window_never_ends_before_it_begins():
    """Right after the first backup it may lie between two seconds."""
    begin = datetime(2026, 3, 1, 2, 0, 5, 200000, tzinfo=UTC)
    short = window_texts(begin, begin + timedelta(milliseconds=500), UTC)
    assert short == ("2026-03-01 02:00:05.200000+00:00", "2026-03-01 02:00:05.700000+00:00")
    longer = window_texts(begin, begin + timedelta(milliseconds=900), UTC)
    assert longer == ("2026-03-01 02:00:06+00:00", "2026-03-01 02:00:06+00:00")
    assert window_texts(begin, None, UTC) == ("2026-03-01 02:00:06+00:00", "-")


def test_a_line_is_one_line_whatever_it_says(capsys):
    say("a\x1b[31m\nb", mark="fail\x1b", color="red")
    say("first\nsecond\x07", err=True, indent=4)
    table(["name", "x"], [["a\nb", 1], ["c", 2]])
    said = capsys.readouterr()
    assert said.out == "fail\\x1ba\\x1b[31m\\nb\nname  x\na\\nb  1\nc     2\n"
    assert said.err == "first\n    second\\x07\n"
