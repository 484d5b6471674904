"""The label of a base backup is its own, or the backup is not restored."""

from __future__ import annotations

import pytest

from pgbackup.core.lsn import Lsn
from pgbackup.postgres.backup_label import label_problem

LABEL = b"""START WAL LOCATION: 1/F000028 (file 00000001000000010000000F)
CHECKPOINT LOCATION: 1/F000060
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-28 14:24:56 UTC
LABEL: pgbackup
START TIMELINE: 1
"""


def test_a_label_of_its_own() -> None:
    assert label_problem(LABEL, Lsn.parse("1/F000028")) == ""


@pytest.mark.parametrize("start", ["1/B000028", "0/F000028", "1/F000029"])
def test_another_one_s(start: str) -> None:
    assert label_problem(LABEL, Lsn.parse(start)) == (
        f"it is of a backup that began at 1/F000028, this one began at {start}"
    )


@pytest.mark.parametrize("data", [b"", b"\0" * 500, LABEL[20:], LABEL[:25], b"x" + LABEL])
def test_what_is_no_label(data: bytes) -> None:
    assert "does not say where recovery begins" in label_problem(data, Lsn.parse("1/F000028"))
