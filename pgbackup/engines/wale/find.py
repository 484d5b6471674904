"""Finds the program of a tool, without running it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pgbackup.errors import ToolError


def find_program(name: str, given: str, environ: Mapping[str, str]) -> Path:
    """The program that was named, else the first of that name on PATH, as an absolute path. Raises ToolError."""
    if given:
        path = Path(given)
        if path.is_file() and os.access(path, os.X_OK):
            return path.absolute()
        what = "cannot be executed" if path.exists() else "does not exist"
        raise ToolError(f"{name} {what}: {given}", hint="Give the path of its program in PGBACKUP_TOOL.")
    found = shutil.which(name, path=environ.get("PATH", os.defpath))
    if found is None:
        raise ToolError(f"{name} is not on PATH", hint=f"Install {name}, or give its path in PGBACKUP_TOOL.")
    return Path(found).absolute()
