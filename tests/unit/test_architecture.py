"""The rules of the house that no linter knows: sizes, names, docstrings. The import contracts are in pyproject.toml."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "pgbackup").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
BANNED_NAMES = {"util", "utils", "common", "helper", "helpers", "misc", "manager", "tools", "constants", "types"}
LIBRARIES = {
    "boto3",
    "brotli",
    "click",
    "croniter",
    "crc32c",
    "httpx",
    "ijson",
    "lz4",
    "lzallright",
    "nacl",
    "psycopg",
    "rich",
    "schedule",
    "sh",
    "zstandard",
}


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", MODULES + TESTS, ids=_relative)
def test_file_is_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{lines} lines: split it by idea"


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_functions_fit_a_screen(path: Path) -> None:
    long = {
        f"{node.name} ({node.end_lineno - node.lineno + 1} lines)"
        for node in _functions(path)
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_module_says_its_idea(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstring = ast.get_docstring(tree)
    assert docstring, "a module opens with a docstring"
    assert docstring[0].isupper() or not docstring[0].isalpha() or docstring.startswith("pgbackup")


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_module_is_named_for_its_one_concept(path: Path) -> None:
    name = path.parent.name if path.name == "__init__.py" else path.stem
    assert name not in BANNED_NAMES
    if path.stem not in {"__init__", "__main__"}:
        assert name not in sys.stdlib_module_names, "the name of a module of Python"
        assert name not in LIBRARIES, "the name of a library"


@pytest.mark.parametrize("path", MODULES + TESTS, ids=_relative)
def test_annotations_are_lazy(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if any(_functions(path)):
        assert "from __future__ import annotations" in text


def test_every_test_mirrors_a_module() -> None:
    """tests/unit/<room>/ exists for a room of pgbackup only."""
    unit = ROOT / "tests" / "unit"
    folders = {path.relative_to(unit) for path in unit.rglob("*") if path.is_dir() and "__" not in path.name}
    strangers = {str(folder) for folder in folders if not (ROOT / "pgbackup" / folder).is_dir()}
    assert not strangers


def test_the_test_command_of_ci_is_the_documented_one() -> None:
    command = "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest"
    assert f"\n{command} || exit 1\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    readme = ROOT / "README.md"
    if readme.exists():
        assert command in readme.read_text(encoding="utf-8")
