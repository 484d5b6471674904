"""One tool, ready to be called: its program, its environment, and its failures as our errors."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from pgbackup.core.stop import StopSignal
from pgbackup.engines.wale.diagnosis import explain
from pgbackup.engines.wale.dialects import Dialect
from pgbackup.engines.wale.tool import Outcome, run_program
from pgbackup.errors import ToolError

_VERSION_SECONDS = 30.0
_GPG_SECONDS = 60.0
_log = logging.getLogger(__name__)


class ToolDriver:
    """Calls the tool. Safe for several threads. ``env`` holds secrets and is never shown."""

    def __init__(self, dialect: Dialect, program: Path, env: Mapping[str, str]) -> None:
        self.dialect = dialect
        self.program = program
        self._env = dict(env)
        self._key_works = False

    def with_env(self, **more: str) -> ToolDriver:
        """The same tool with more in its environment."""
        return ToolDriver(self.dialect, self.program, {**self._env, **more})

    def call(
        self,
        words: list[str],
        *,
        timeout_seconds: float,
        stop: StopSignal | None = None,
        watch: Callable[[int], None] = lambda active: None,
    ) -> Outcome:
        """Run it. Raises ToolError for everything but exit status 0; see ``run_program`` for the rest."""
        outcome = run_program(
            [self.program, *words], env=self._env, timeout_seconds=timeout_seconds, stop=stop, watch=watch
        )
        _log.debug("%s %s: exit %d after %.1f s", self.dialect.name, words[0], outcome.status, outcome.seconds)
        if not outcome.ok:
            raise explain(self.dialect.name, words, outcome)
        return outcome

    def version(self) -> str:
        """What it calls its version, in one line. Raises ToolError."""
        outcome = self.call(self.dialect.version(), timeout_seconds=_VERSION_SECONDS)
        text = (outcome.stdout or outcome.stderr).strip().splitlines()
        return text[0].strip()[:100] if text else "unknown"

    @property
    def gpg_key(self) -> str:
        """The key that WAL-E lets GnuPG encrypt to; empty for none."""
        return self._env.get("WALE_GPG_KEY_ID", "") if self.dialect.name == "wal-e" else ""

    def require_key(self) -> None:
        """Let GnuPG encrypt nothing, as WAL-E lets it encrypt everything, once: where it cannot, WAL-E waits without
        end for what never comes. Raises ToolError for a key that is missing, not trusted or expired."""
        if not self.gpg_key or self._key_works:
            return
        words = ["-e", "-z", "0", "-r", self.gpg_key]
        outcome = run_program(["gpg", *words], env=self._env, timeout_seconds=_GPG_SECONDS)
        if not outcome.ok:
            raise explain("gpg", words, outcome)
        self._key_works = True

    def missing_programs(self) -> list[str]:
        """Programs that it starts and that are not on its PATH."""
        wanted = [*self.dialect.programs]
        if self.gpg_key:
            wanted.append("gpg")
        return [name for name in wanted if shutil.which(name, path=self._env.get("PATH", os.defpath)) is None]

    def require_programs(self) -> None:
        """Raises ToolError for the first program that is missing."""
        for name in self.missing_programs():
            raise ToolError(
                f"{self.dialect.name} needs {name}, which is missing", hint=f"Install {name} where pgbackup runs."
            )
