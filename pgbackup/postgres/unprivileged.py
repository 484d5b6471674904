"""Runs PostgreSQL's programs as root's harmless neighbour.

PostgreSQL refuses to run as root. Started by root, throw-away servers belong to ``postgres``, else ``nobody``; both
must be able to read the programs, and a virtual environment below /root is closed to them. Such programs are copied
once per process into a directory that everybody may read. A wheel keeps shared libraries in ``<package>.libs`` beside
the package and finds them relative to the program, so the copy has the same shape.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from pgbackup.errors import ToolError
from pgbackup.postgres.binaries import Installation

_CANDIDATES = ("postgres", "nobody")
_NOT_NEEDED = shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig", "man", "doc")
_KEPT_VARIABLES = ("PATH", "TZ", "TMPDIR", "LD_LIBRARY_PATH")

_SETPRIV = shutil.which("setpriv")
_STOP_SERVER = "QUIT"  # an immediate shutdown, which ends the backends too

_copies: dict[Path, Path] = {}
_copies_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the servers: another user, or ourselves when ``uid`` is None."""

    name: str
    uid: int | None = None
    gid: int | None = None

    def run(self, command: Sequence[str | Path], *, timeout: float = 120) -> str:
        """Run a program to its end and return its stdout. Raises ToolError with the end of its stderr."""
        name = Path(command[0]).name
        try:
            done = subprocess.run(
                list(command), user=self.uid, group=self.gid, extra_groups=self._extra_groups(),
                env=clean_environment(), cwd="/", stdin=subprocess.DEVNULL, capture_output=True,
                text=True, errors="replace", timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            raise ToolError(f"{name} did not end within {timeout:g} seconds") from exc
        except OSError as exc:
            raise ToolError(f"cannot run {command[0]} as {self.name}", detail=str(exc)) from exc
        if done.returncode:
            output = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise ToolError(f"{name} failed with exit status {done.returncode}", detail=output)
        return done.stdout

    def start(
        self, command: Sequence[str | Path], *, log: IO[bytes], reads_everything: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own, with stdout and stderr in ``log``; it does not outlive us.

        ``reads_everything`` (for root, where the system allows it): the program and its children may read any file, as
        a restore_command must that runs a Python below /root.
        """
        if reads_everything and self.uid is not None and _SETPRIV:
            command, uid, gid, groups = [*self._with_capability(), *command], None, None, None
        else:
            command, uid, gid, groups = (
                [*ends_with_us(_STOP_SERVER), *command],
                self.uid,
                self.gid,
                self._extra_groups(),
            )
        try:
            return subprocess.Popen(
                command, user=uid, group=gid, extra_groups=groups, env=clean_environment(), cwd="/",
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        except OSError as exc:
            raise ToolError(f"cannot run {command[0]} as {self.name}", detail=str(exc)) from exc

    def make_directory(self, path: Path, mode: int = 0o700) -> Path:
        """Make a directory of this account's; parents must exist and let the account pass."""
        path.mkdir(mode=mode)
        self.own(path)
        return path

    def own(self, path: Path) -> None:
        """Make this account the owner of a file, or of a directory and all below it."""
        if self.uid is None or self.gid is None:
            return
        os.chown(path, self.uid, self.gid, follow_symlinks=False)
        if path.is_dir() and not path.is_symlink():
            for folder, folders, files in os.walk(path):
                for name in folders + files:
                    os.chown(Path(folder) / name, self.uid, self.gid, follow_symlinks=False)

    def _with_capability(self) -> list[str]:
        capability = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
        user = ["--reuid", str(self.uid), "--regid", str(self.gid), "--clear-groups"]
        return [*(ends_with_us(_STOP_SERVER) or [str(_SETPRIV)]), *user, *capability]

    def _extra_groups(self) -> list[int] | None:
        return None if self.uid is None else []


def server_account() -> Account:
    """The account that throw-away servers run as. Raises ToolError when root has no other to use."""
    if os.geteuid() != 0:
        return Account(pwd.getpwuid(os.geteuid()).pw_name if _has_name() else str(os.geteuid()))
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise ToolError(
        "PostgreSQL does not run as root, and there is no other user to run it as",
        hint="Create a user named postgres, or run this as an ordinary user.",
    )


def make_workspace(account: Account, prefix: str = "pgbackup-") -> Path:
    """A new temporary directory that the account owns. Its path is short: a socket's path holds 107 bytes."""
    base = tempfile.gettempdir()
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=base if len(base) < 40 else "/tmp"))  # noqa: S108 - for its length
    directory.chmod(0o711)
    account.own(directory)
    return directory


def readable_installation(installation: Installation, account: Account) -> Installation:
    """The same programs where the account can run them: in place, or a copy that goes when this process ends."""
    if account.uid is None or _can_run(installation.bindir, account):
        return installation
    with _copies_lock:
        copy = _copies.get(installation.bindir)
        if copy is None:
            copy = _copies[installation.bindir] = _copy(installation.bindir)
    if not _can_run(copy, account):
        raise ToolError(f"user {account.name} cannot run {installation}", hint="Install PostgreSQL system-wide.")
    return replace(installation, bindir=copy)


def clean_environment() -> dict[str, str]:
    """Ours without libpq's variables and translations: servers and tools must not follow the operator's PGHOST."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {**kept, "LC_ALL": "C"}


def ends_with_us(signal_name: str = "KILL") -> list[str]:
    """A prefix that makes the kernel send the program a signal when we die, be it by SIGKILL.

    It goes by the thread that starts the program, so only the main thread, which lives as long as we do, may ask.
    """
    if _SETPRIV is None or threading.current_thread() is not threading.main_thread():
        return []
    return [_SETPRIV, "--pdeathsig", signal_name]


def _can_run(bindir: Path, account: Account) -> bool:
    try:
        account.run([bindir / "postgres", "--version"], timeout=30)
    except ToolError:
        return False
    return True


def _copy(bindir: Path) -> Path:
    """Copy ``<site>/<package>/<prefix>/bin`` with its prefix and ``<site>/<package>.libs``; returns the new bindir."""
    prefix = bindir.parent
    package = prefix.parent
    target = Path(tempfile.mkdtemp(prefix="pgbackup-programs-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    target.chmod(0o755)
    shutil.copytree(prefix, target / package.name / prefix.name, symlinks=True, ignore=_NOT_NEEDED)
    libraries = package.with_name(package.name + ".libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    for folder, _, files in os.walk(target):
        Path(folder).chmod(0o755)
        for file in map(Path(folder).joinpath, files):
            if not file.is_symlink():
                file.chmod(file.stat().st_mode | 0o444 | (0o111 if os.access(file, os.X_OK) else 0))
    return target / package.name / prefix.name / bindir.name


def _has_name() -> bool:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True
