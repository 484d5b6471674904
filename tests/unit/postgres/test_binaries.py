"""Where PostgreSQL's programs are looked for, and which installation of one version is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgbackup.errors import ToolError
from pgbackup.postgres import binaries
from pgbackup.postgres.binaries import SERVER_TOOLS, Installation, find_installations, inspect_directory


def make_installation(directory: Path, version: str = "99.3", *more: str) -> Path:
    """Programs that can say their version and nothing else."""
    directory.mkdir(parents=True)
    for name in (*SERVER_TOOLS, *more):
        program = directory / name
        program.write_text(f'#!/bin/sh\necho "{name} (PostgreSQL) {version}"\n')
        program.chmod(0o755)
    return directory


@pytest.fixture(autouse=True)
def _nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only the directories of the test, not those of this machine."""
    monkeypatch.setattr(binaries, "_DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(binaries, "_PACKAGES", ())
    for name in ("PGBACKUP_PG_BINDIR", "PGBACKUP_TEST_PG_DIRS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("version", "major"),
    [("99.3", 99), ("15.18 (Debian 15.18-0+deb12u1)", 15), ("19beta1", 19), ("17rc1", 17), ("18devel", 18)],
)
def test_version_as_the_program_says_it(tmp_path: Path, version: str, major: int) -> None:
    found = inspect_directory(make_installation(tmp_path / "bin", version))
    assert found is not None
    assert (found.major, found.version) == (major, version.split(maxsplit=1)[0])
    assert found.tools == frozenset(SERVER_TOOLS)


def test_a_directory_may_be_the_one_above_bin(tmp_path: Path) -> None:
    make_installation(tmp_path / "pg" / "bin")
    found = inspect_directory(tmp_path / "pg")
    assert found is not None
    assert found.bindir == tmp_path / "pg" / "bin"


def test_what_does_not_run_is_not_there(tmp_path: Path) -> None:
    bindir = make_installation(tmp_path / "bin")
    assert inspect_directory(bindir) is not None
    (bindir / "postgres").write_text("#!/bin/sh\nexit 127\n")
    assert inspect_directory(bindir) is None
    (bindir / "initdb").unlink()
    assert inspect_directory(bindir) is None
    assert inspect_directory(tmp_path / "nothing") is None


def test_every_place_is_searched(tmp_path: Path) -> None:
    make_installation(tmp_path / "debian" / "15" / "bin", "15.2")
    named = make_installation(tmp_path / "named", "16.1")
    by_variable = make_installation(tmp_path / "variable", "17.1")
    for_tests = [make_installation(tmp_path / name, version) for name, version in (("a", "14.2"), ("b", "18.0"))]
    environ = {
        "PGBACKUP_PG_BINDIR": str(by_variable),
        "PGBACKUP_TEST_PG_DIRS": ":".join(map(str, for_tests)) + ":/does/not/exist:",
    }
    assert list(find_installations([named], environ=environ)) == [14, 15, 16, 17, 18]


def test_more_programs_win_but_never_over_a_named_directory(tmp_path: Path) -> None:
    few = make_installation(tmp_path / "few", "16.1")
    many = make_installation(tmp_path / "debian" / "16" / "bin", "16.9", "pg_waldump", "psql")
    by_tests = {"PGBACKUP_TEST_PG_DIRS": str(few)}
    assert find_installations(environ=by_tests)[16].bindir == many
    assert find_installations([few], environ={})[16].bindir == few
    assert find_installations(environ={"PGBACKUP_PG_BINDIR": str(few)})[16].bindir == few


def test_a_missing_program_is_named() -> None:
    installation = Installation(Path("/pg/bin"), 16, "16.1", frozenset(SERVER_TOOLS))
    assert installation.tool("initdb") == Path("/pg/bin/initdb")
    with pytest.raises(ToolError, match=r"16\.1 in /pg/bin has no pg_waldump"):
        installation.tool("pg_waldump")


def test_no_server_at_all_says_what_to_install() -> None:
    with pytest.raises(ToolError) as caught:
        binaries.require_installation()
    assert "pip install" in caught.value.hint
    with pytest.raises(ToolError, match="no PostgreSQL 13 server"):
        binaries.require_installation(13)
