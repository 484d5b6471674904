"""A test whose server or program is not on the machine is skipped at home and fails in CI."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = "from tests.conftest import pytest_runtest_makereport\n"
TESTS = """
import pytest

@pytest.fixture
def server():
    pytest.skip("PostgreSQL 14 is not on this machine")

def test_needs_a_server(server): ...

@pytest.mark.skipif(True, reason="on purpose")
def test_marked(): ...

def test_decides_itself():
    pytest.skip("this version has no such command")

def test_looks_for_a_program():
    pytest.skip("lzop is not on this machine")
"""


@pytest.mark.parametrize(("ci", "failed"), [("", 0), ("true", 1)])
def test_skips(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, failed: int) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    # A failure in a fixture is what pytest calls an error.
    result.assert_outcomes(skipped=4 - 2 * failed, errors=failed, failed=failed)
    for what in ("PostgreSQL 14", "lzop") if failed else ():
        result.stdout.fnmatch_lines([f"*nothing may be missing in CI: {what} is not on this machine*"])
