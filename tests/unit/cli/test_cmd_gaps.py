"""`pgbackup gaps`: two may begin at one place, and an acknowledgement means all that its name means."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pgbackup.cli import main as cli
from pgbackup.core.known_gaps import KnownGap
from pgbackup.core.lsn import Lsn
from pgbackup.repository.gap_ledger import record_gap
from pgbackup.storage.file import FileStore

SIZE = 16 << 20
GAP = KnownGap(1, Lsn(4 * SIZE), Lsn(9 * SIZE), datetime(2026, 3, 1, tzinfo=UTC), "the server had removed it")


@pytest.fixture
def gaps(monkeypatch, capsys, tmp_path):
    """Streaming began after the gap, got nowhere, and had to begin later yet."""
    monkeypatch.setattr("pgbackup.logs.configure", lambda **options: None)
    store = FileStore(tmp_path)
    for gap in (GAP, replace(GAP, end=Lsn(11 * SIZE))):
        assert record_gap(store, gap)

    def run(*arguments):
        assert cli.run(["--repository", f"file://{tmp_path}", "gaps", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_all_gaps_of_a_name_are_acknowledged(gaps):
    assert gaps("acknowledge", GAP.name) == {"acknowledged": [GAP.name]}
    found = gaps()["gaps"]
    assert [gap["name"] for gap in found] == [GAP.name, GAP.name]
    assert all(gap["acknowledged"] for gap in found)
