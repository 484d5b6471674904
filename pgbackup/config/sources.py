"""Reads the layers of settings: flags, environment, TOML file; everything unknown in them is a problem.

A layer holds text by name of the setting. Secrets may come from files: ``PGBACKUP_<NAME>_FILE`` in the environment,
``<name>_file`` in TOML. An empty variable counts as not given, except for a secret: an encryption key that came out
empty must not lead to plaintext.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from pgbackup.config.problems import PREFIX, Problem, variable_name

USUAL_FILES = (Path("pgbackup.toml"), Path("/etc/pgbackup/pgbackup.toml"))
CONFIG_VARIABLE = "PGBACKUP_CONFIG"
NOT_SETTINGS = frozenset({CONFIG_VARIABLE, "PGBACKUP_PG_BINDIR"})
TEST_PREFIX = "PGBACKUP_TEST_"

# A Kubernetes service named "pgbackup" puts these into every container of its namespace.
_SERVICE_VARIABLE = re.compile(r"^PGBACKUP_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)$")
_MAX_SECRET_BYTES = 64 << 10
_OTHERS = ("WALG_", "WALE_", "AWS_")
_SUFFIXES_OF_WAL_G = (".json", ".yaml", ".yml")
_NOT_OF_WAL_G = "a configuration file of WAL-G is not read, set what it says in the environment"
_TOO_LARGE = 1 << 64


@dataclass(frozen=True, slots=True)
class Layer:
    """What one source gave: ``values`` and, for each, where it came from, for people."""

    values: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Read:
    """Every layer, strongest first, and what was wrong with them."""

    layers: tuple[Layer, ...]
    problems: tuple[Problem, ...]

    def with_default(self, name: str, value: str, origin: str) -> Read:
        """The same with one more, weakest layer, unless ``value`` is empty."""
        return self.with_layer(Layer({name: value}, {name: origin}) if value else Layer())

    def with_layer(self, weakest: Layer) -> Read:
        """The same with a weakest layer."""
        return Read((*self.layers, weakest), self.problems)

    def given(self) -> frozenset[str]:
        """The settings that any layer gives."""
        return frozenset(name for layer in self.layers for name in layer.values)

    def value(self, name: str, default: str) -> str:
        """The text that counts for a setting."""
        return next((layer.values[name] for layer in self.layers if name in layer.values), default)

    def origins(self) -> dict[str, str]:
        """Where each setting's value came from, for those that were given."""
        merged: dict[str, str] = {}
        for layer in reversed(self.layers):
            merged.update(layer.origins)
        return merged


def config_file(environ: Mapping[str, str], given: Path | None) -> Path | None:
    """The TOML file to read: the one named by a flag, by ``PGBACKUP_CONFIG``, or the first usual one that exists."""
    if given is not None:
        return given
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE])
    return next((path for path in USUAL_FILES if path.is_file()), None)


def read_layers(
    names: Mapping[str, bool], *, environ: Mapping[str, str], toml: Path | None, overrides: Mapping[str, str]
) -> Read:
    """``names``: every setting, and whether it is a secret."""
    problems: list[Problem] = []
    flags = Layer(dict(overrides), {name: f"--{name.replace('_', '-')}" for name in overrides})
    environment = _Reader(names, problems).read(dict(_variables(environ)))
    table = _read_toml(toml, problems) if toml is not None else {}
    from_file = _Reader(names, problems, file=str(toml)).read(table)
    return Read((flags, environment, from_file), tuple(problems))


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable in NOT_SETTINGS or variable.startswith(TEST_PREFIX):
            continue
        if not _SERVICE_VARIABLE.match(variable):
            yield variable, value


def _read_toml(path: Path, problems: list[Problem]) -> dict[str, str]:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        problems.append(Problem("", f"{path}: the configuration file cannot be read: {reason}"))
        return {}
    except (ValueError, RecursionError) as exc:
        # Not TOMLDecodeError alone: int() raises for numbers of thousands of digits.
        why = f"; {_NOT_OF_WAL_G}" if path.suffix in _SUFFIXES_OF_WAL_G else ""
        problems.append(Problem("", f"{path}: not TOML: {exc}{why}"))
        return {}
    found = {}
    for key, value in table.items():
        if isinstance(value, bool):
            found[key] = "yes" if value else "no"
        elif isinstance(value, str | float) or (isinstance(value, int) and abs(value) < _TOO_LARGE):
            found[key] = str(value)
        else:
            problems.append(Problem("", f"{path}: {key} must be a text, a number of at most 64 bits or a boolean"))
    return found


class _Reader:
    """Sorts what one source gave into a layer, or into problems. Without ``file`` the source is the environment."""

    def __init__(self, names: Mapping[str, bool], problems: list[Problem], *, file: str = "") -> None:
        self._names = names
        self._problems = problems
        self._file = file
        self._known = {self._spell(name): name for name in names}
        self._files = {self._spell(f"{name}_file"): name for name, hidden in names.items() if hidden}

    def _spell(self, name: str) -> str:
        return name if self._file else variable_name(name)

    def read(self, given: Mapping[str, str]) -> Layer:
        layer = Layer()
        for key, value in given.items():
            if key in self._known:
                self._take(layer, key, self._known[key], value)
            elif key in self._files:
                self._take_file(layer, key, self._files[key], value, twice=self._spell(self._files[key]) in given)
            else:
                self._refuse(key)
        return layer

    def _take(self, layer: Layer, key: str, name: str, value: str) -> None:
        if value == "" and self._names[name]:
            self._problems.append(Problem(name, "is empty: leave it out if none is wanted"))
        elif value != "":
            layer.values[name] = value
            layer.origins[name] = self._file or key

    def _take_file(self, layer: Layer, key: str, name: str, path: str, *, twice: bool) -> None:
        if twice:
            self._problems.append(Problem(name, f"is given twice: as {self._spell(name)} and as {key}"))
            return
        try:
            value = read_secret(Path(path))
        except OSError as exc:
            self._problems.append(Problem(f"{name}_file", f"cannot be read: {exc.strerror or exc}", got=path))
        except ValueError as exc:
            self._problems.append(Problem(f"{name}_file", str(exc), got=path))
        else:
            layer.values[name] = value
            layer.origins[name] = path

    def _refuse(self, key: str) -> None:
        near = get_close_matches(key, [*self._known, *self._files], n=1, cutoff=0.75)
        hint = f"; did you mean {near[0]}?" if near else ""
        if self._file and key.upper().startswith(_OTHERS):
            hint = f" of this file: {_NOT_OF_WAL_G}"
        place = f"{self._file}: {key}" if self._file else key
        self._problems.append(Problem("", f"{place}: is not a setting{hint}"))


def read_secret(path: Path) -> str:
    """A file's text without the newline at its end. Raises OSError, and ValueError for what can be no secret."""
    with path.open("rb") as file:
        data = file.read(_MAX_SECRET_BYTES + 1)
    if len(data) > _MAX_SECRET_BYTES:
        raise ValueError("is too large for a secret")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ValueError("is not UTF-8 text: write the key as hex or base64") from exc
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError("is empty")
    return text
