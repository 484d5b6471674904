"""synchronous_standby_names: what commits wait for."""

from __future__ import annotations

import pytest

from pgbackup.postgres.server_checks import SynchronousNames, parse_synchronous_names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", SynchronousNames(1, (), False)),
        ("pgbackup", SynchronousNames(1, ("pgbackup",), False)),
        ("a, pgbackup", SynchronousNames(1, ("a", "pgbackup"), False)),
        ("2 (a, b)", SynchronousNames(2, ("a", "b"), False)),
        ("FIRST 1 (a, b)", SynchronousNames(1, ("a", "b"), False)),
        ('any 1 ("A ""b""", *)', SynchronousNames(1, ('A "b"', "*"), True)),
    ],
)
def test_reading_the_setting(text, expected):
    assert parse_synchronous_names(text) == expected


@pytest.mark.parametrize(
    ("text", "waits", "always"),
    [
        ("", False, False),
        ("pgbackup", True, True),
        ("PgBackup", True, True),
        ("*", True, False),
        ("other", False, False),
        ("pgbackup, other", True, True),
        ("other, pgbackup", True, False),
        ("2 (other, pgbackup)", True, True),
        ("ANY 1 (other, pgbackup)", True, False),
        ("ANY 2 (other, pgbackup)", True, True),
        ("FIRST 2 (a, b, pgbackup)", True, False),
    ],
)
def test_what_a_commit_waits_for(text, waits, always):
    names = parse_synchronous_names(text)
    assert (names.waits_for("pgbackup"), names.always_waits_for("pgbackup")) == (waits, always)
