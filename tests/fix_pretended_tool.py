"""An engine whose tool plays a part that a test chooses: it lies, hangs, forks, floods or fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pgbackup.engines.wale import shipping
from pgbackup.engines.wale.engine import ToolEngine
from pgbackup.engines.wale.tool_processes import MARK
from pgbackup.postgres.throwaway import ThrowawayServer
from pgbackup.storage.file import FileStore
from tests.tool_engine import pretend_tool, tool_engine


@dataclass
class Pretended:
    """An engine whose tool does what ``mode`` says."""

    engine: ToolEngine
    store: FileStore
    mode_file: Path
    spool: Path

    def mode(self, word: str) -> None:
        self.mode_file.write_text(word)

    def for_server(self, server: ThrowawayServer) -> ToolEngine:
        """The same tool for base backups of a server."""
        how = replace(self.engine._how, conninfo=server.conninfo(local=True))
        return ToolEngine(how, wal_concurrency=1, spool_parent=self.spool)

    def calls(self, verb: str) -> int:
        path = self.mode_file.with_suffix(".calls")
        return sum(line.startswith(verb) for line in path.read_text().splitlines()) if path.exists() else 0

    def spooled(self) -> list[Path]:
        return [path for path in self.spool.rglob("pg_wal/0*") if path.is_file()]


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretended]:
    monkeypatch.setattr(shipping, "_LISTED_SECONDS", 0.5)
    repository, spool, mode = tmp_path / "repository", tmp_path / "spool", tmp_path / "mode"
    spool.mkdir()
    mode.write_text("good")
    engine = tool_engine("wal-g", pretend_tool(tmp_path), repository, spool, PRETEND_MODE=str(mode))
    yield Pretended(engine, FileStore(repository), mode, spool)
    engine.close()
    assert list(spool.iterdir()) == []
    assert living(spool) == []


def living(mentioned: Path) -> list[str]:
    """Processes of a tool that still live; other workers have theirs."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and f"{MARK}=".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
        except OSError:
            continue
    return [line for line in found if str(mentioned) in line]
