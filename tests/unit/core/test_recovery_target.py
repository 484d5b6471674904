"""Targets of a restore: what can be one, and what cannot."""

from __future__ import annotations

from datetime import datetime

import pytest

from pgbackup.core.recovery_target import Target
from tests.made_catalog import at


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "time"},
        {"kind": "latest", "lsn": at(1)},
        {"kind": "time", "time": datetime(2026, 1, 1)},  # noqa: DTZ001 - that is the point
        {"kind": "name", "name": "x" * 64},
        {"kind": "name", "name": ""},
        {"kind": "xid", "xid": 0},
        {"kind": "immediate", "exclusive": True},
    ],
)
def test_targets_that_cannot_be(wrong):
    with pytest.raises(ValueError):  # noqa: PT011
        Target(**wrong)


def test_a_64_bit_transaction_id_is_cut_to_what_wal_knows():
    assert Target("xid", xid=(3 << 32) + 1234).xid == 1234
