"""``pgbackup backup-push``: the options of both tools, wherever they stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pgbackup.cli.cmd_backup_push import command

DATA = "/nowhere/data"


@dataclass
class FakeApp:
    """Takes no backup and keeps what it was asked for; its server's directory cannot be seen from here."""

    asked: dict[str, Any] = field(default_factory=dict)

    def server_facts(self) -> SimpleNamespace:
        return SimpleNamespace(data_directory=DATA, system_identifier=7)

    def take_backup(self, **asked: Any) -> SimpleNamespace:
        self.asked = asked
        return SimpleNamespace(name="base_X", new=True, corrupt_files={})


def run(arguments: str) -> tuple[Result, FakeApp]:
    app = FakeApp()
    return CliRunner().invoke(command, arguments.replace("DATA", DATA).split(), obj=app), app


@pytest.mark.parametrize(
    ("arguments", "permanent", "rate"),
    [
        ("-p 4 DATA", False, None), ("DATA -p 4", False, None), ("DATA -p4", False, None), ("-p4 DATA", False, None),
        ("DATA --pool-size 4", False, None), ("--pool-size=4 DATA", False, None),
        ("DATA -p 4 --cluster-read-rate-limit 5", False, 5), ("--cluster-read-rate-limit=5 DATA -p 4", False, 5),
        ("-p DATA", True, None), ("DATA -p", True, None), ("-fp DATA", True, None), ("DATA --permanent", True, None),
        ("-p -f DATA", True, None), ("DATA -p -f", True, None), ("-p -- DATA", True, None), ("-p", True, None),
    ],
)  # fmt: skip
def test_options_stand_before_or_behind_the_directory(arguments: str, permanent: bool, rate: int | None) -> None:
    """WAL-E's argparse and WAL-G's cobra take them anywhere. ``-p`` with a number behind it is WAL-E's."""
    result, app = run(arguments)
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    assert (app.asked["permanent"], app.asked["max_rate"]) == (permanent, rate)


@pytest.mark.parametrize("arguments", ["DATA /other", "-p 4 5 DATA", "DATA 4"])
def test_two_directories_are_a_mistake(arguments: str) -> None:
    result, app = run(arguments)
    assert result.exit_code == 2
    assert "more than one data directory" in result.output
    assert not app.asked
