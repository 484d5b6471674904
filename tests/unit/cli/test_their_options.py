"""What WAL-G takes behind every command."""

from __future__ import annotations

from importlib import import_module

import pytest
from click.testing import CliRunner

COMMANDS = {
    "wal-push": ["/x"], "wal-fetch": ["A", "/x"], "backup-push": [], "backup-fetch": ["/x", "LATEST"],
    "backup-list": [], "delete": ["retain", "1"],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("behind", [True, False])
def test_a_configuration_file_of_wal_g_is_refused_with_the_way_out(name: str, behind: bool) -> None:
    command = import_module(f"pgbackup.cli.cmd_{name.replace('-', '_')}").command
    option = ["--config", "/etc/wal-g.json"]
    arguments = [*COMMANDS[name], *option] if behind else [*option, *COMMANDS[name]]
    result = CliRunner().invoke(command, ["--turbo", *arguments])
    assert result.exit_code == 2
    assert "--config is not supported: WAL-G's file is not read, set what it says in the environment" in result.output
    assert "`pgbackup --config FILE.toml COMMAND`" in result.output
