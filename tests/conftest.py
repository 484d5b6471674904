"""What every test gets: the fixtures of fix_*.py, a marker named for its folder, and no quiet skips in CI.

Locally a test is skipped when a server or a program that it needs is missing, and says so. With ``CI`` in the
environment such a skip is a failure: there, they must be present.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = [
    "pytester",
    "tests.fix_postgres",
    "tests.fix_store",
    "tests.fix_proxy",
    "tests.fix_receiver",
    "tests.fix_app",
    "tests.fix_gpg",
    "tests.fix_tools",
    "tests.fix_walg",
    "tests.fix_pretended_tool",
]

_TESTS = Path(__file__).parent
_FOLDER_MARKERS = {"unit", "contracts", "integration", "e2e", "bench"}

# How long an example takes says nothing on a machine that is shared; pytest-timeout bounds the whole.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

pytest.register_assert_rewrite("tests.workload", "tests.contracts")


_OPERATORS_VARIABLES = ("PGBACKUP_", "AWS_", "PG", "WALG_", "WALE_")
_TESTS_OWN = "PGBACKUP_TEST_"
_MISSING = "not on this machine"
"""What a test says that skips itself because a program is missing."""


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Tests wait more than they work: two for each core. What measures has the machine for itself."""
    return 0 if "bench" in config.option.markexpr else min(8, 2 * (os.cpu_count() or 1))


def pytest_configure() -> None:
    """The operator's own settings must not reach the programs under test; where servers lie is for the workers.

    SIGTERM, as ``timeout`` sends it, ends the run like Ctrl-C: servers are stopped and directories removed. A shell
    ignores SIGINT for what it runs in the background; taken over for SIGTERM, programs under test would inherit that.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in [
        name for name in os.environ if name.startswith(_OPERATORS_VARIABLES) and not name.startswith(_TESTS_OWN)
    ]:
        del os.environ[name]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_TESTS):
            folder = item.path.relative_to(_TESTS).parts[0]
            if folder in _FOLDER_MARKERS:
                item.add_marker(folder)
        if "make_server" in getattr(item, "fixturenames", ()):
            item.add_marker("postgres")
    if "bench" not in config.option.markexpr:
        measuring = [item for item in items if item.get_closest_marker("bench")]
        config.hook.pytest_deselected(items=measuring)
        items[:] = [item for item in items if item not in measuring]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and in_ci() and not _skipped_by_mark(item):
        reason = str(call.excinfo.value) if call.excinfo else "skipped"
        if report.when == "setup" or _MISSING in reason:
            report.outcome = "failed"
            report.longrepr = f"nothing may be missing in CI: {reason}"
    return report


def _skipped_by_mark(item: pytest.Item) -> bool:
    return any(True for name in ("skip", "skipif") for _ in item.iter_markers(name))
