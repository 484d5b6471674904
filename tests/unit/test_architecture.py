"""The rules of the house that no linter knows: sizes, names, docstrings. The import contracts are in pyproject.toml."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

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


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(_text(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_files_are_small() -> None:
    """Split a larger one by idea."""
    lines = {_relative(path): len(_text(path).splitlines()) for path in MODULES + TESTS}
    assert {path: count for path, count in lines.items() if count > MAX_FILE_LINES} == {}


def test_functions_fit_a_screen() -> None:
    lines = {
        f"{_relative(path)}: {node.name}": node.end_lineno - node.lineno + 1
        for path in MODULES
        for node in _functions(path)
        if node.end_lineno is not None
    }
    assert {name: count for name, count in lines.items() if count > MAX_FUNCTION_LINES} == {}


def test_modules_say_their_idea() -> None:
    """A module opens with a docstring, and that with a capital letter."""
    found = {_relative(path): ast.get_docstring(ast.parse(_text(path))) or "" for path in MODULES}
    for path, docstring in found.items():
        assert docstring, path
        assert docstring[0].isupper() or not docstring[0].isalpha() or docstring.startswith("pgbackup"), path


def test_modules_are_named_for_their_one_concept() -> None:
    """Neither for everything and nothing, nor like a module of Python, nor like a library."""
    for path in MODULES:
        name = path.parent.name if path.name == "__init__.py" else path.stem
        assert name not in BANNED_NAMES, path
        if path.stem not in {"__init__", "__main__"}:
            assert name not in sys.stdlib_module_names | LIBRARIES, path


def test_annotations_are_lazy() -> None:
    for path in MODULES + TESTS:
        if any(_functions(path)):
            assert "from __future__ import annotations" in _text(path), path


def test_one_module_prints() -> None:
    """What reaches a terminal goes through ``printable``: only cli.output and the handler of logs write there."""
    writers = {
        _relative(path)
        for path in MODULES
        for node in ast.walk(ast.parse(_text(path)))
        if (isinstance(node, ast.Attribute) and node.attr in {"echo", "secho", "style", "prompt", "confirm"})
        or (isinstance(node, ast.Name) and node.id == "print")
    }
    assert writers == {"pgbackup/cli/output.py"}


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
