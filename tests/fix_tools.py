"""The real tools of the family: WAL-E in a virtual environment of its own, WAL-G where somebody has installed it.

WAL-E is made once for a working copy, by whichever worker comes first (a file lock), or by .ci/run before the tests.
WAL-G comes from no package registry: without one on PATH what needs it is left out of the run.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pgbackup.repository.codec import is_readable
from tests.conftest import in_ci

ROOT = Path(__file__).parents[1]
WAL_E = ROOT / ".ci" / "wal-e"
_NEEDS = ("lzop", "pv", "psql")
_FAMILY_REQUIREMENTS = ("wal-e[aws]==1.1.1",)

WAL_G = shutil.which("wal-g")
needs_lzo = pytest.mark.skipif(not is_readable("lzo") and not in_ci(), reason="this Python cannot read lzop's objects")
needs_wal_g = pytest.mark.skipif(WAL_G is None, reason="no wal-g on PATH")


def make_wal_e(folder: Path = WAL_E) -> Path:
    """The program, made if it is not there. Raises CalledProcessError when it cannot be."""
    program = folder / "bin" / "wal-e"
    complete = folder / "complete-aws"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            install = [folder / "bin" / "pip", "install", "-q", "--disable-pip-version-check", *_FAMILY_REQUIREMENTS]
            subprocess.run(install, check=True, timeout=170, stdin=subprocess.DEVNULL)
            complete.touch()
    return program


@pytest.fixture(scope="session")
def wal_e() -> Path:
    """WAL-E 1.1.1 with everything that it needs; the test is skipped (in CI: fails) without."""
    missing = [name for name in _NEEDS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"WAL-E needs {', '.join(missing)}")
    try:
        return make_wal_e()
    except (subprocess.SubprocessError, OSError) as exc:
        pytest.skip(f"WAL-E cannot be installed: {exc}")


@pytest.fixture(scope="session")
def wal_g() -> Path:
    """WAL-G, for tests that are marked with ``needs_wal_g``."""
    assert WAL_G is not None
    return Path(WAL_G)
