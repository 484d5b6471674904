"""The settings of WAL-E and WAL-G: what their variables come to as settings of ours, where ours are not given.

This is the one module that maps theirs to ours. The result is the weakest layer of the settings, how S3 is reached,
what was wrong, and for each variable of theirs what became of it, for `pgbackup check`; never with a secret in it.
Precedence among theirs is WAL-G's own: ``WALG_`` before ``WALE_``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pgbackup.config import inherited_encryption as encryption
from pgbackup.config import inherited_place as place
from pgbackup.config.inherited_notes import why_ignored
from pgbackup.config.problems import Problem, variable_name
from pgbackup.config.sources import Layer
from pgbackup.config.store_connection import StoreConnection, parse_endpoint, parse_wale_endpoint
from pgbackup.config.values import parse_bool

Use = Literal["understood", "overridden", "ignored"]

ENDPOINTS = ("AWS_ENDPOINT", "WALG_AWS_ENDPOINT", "WALE_S3_ENDPOINT")
PATH_STYLE = ("AWS_S3_FORCE_PATH_STYLE", "WALG_AWS_S3_FORCE_PATH_STYLE")
CA_FILES = ("WALG_S3_CA_CERT_FILE", "S3_CA_CERT_FILE")
_BOTO3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_PREFIXES = ("WALG_", "WALE_")
_MOST_UPLOADS = 20
_NUMBER = re.compile(r"[0-9]{1,18}")
_MOST_DOWNLOADS = 16
_ZSTD_LEVELS = {"fastest": 1, "default": 3, "better": 7, "best": 11}
"""WALG_ZSTD_LEVEL: the levels of zstd that WAL-G's library says its own are about."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What became of one variable of WAL-E or WAL-G. ``loses``: its user asked for something that there is not."""

    variable: str
    use: Use
    text: str
    loses: bool = False


@dataclass(frozen=True)
class InheritedSettings:
    """``layer``: settings by our names, weaker than every layer of ours."""

    layer: Layer = field(default_factory=Layer)
    connection: StoreConnection = field(default_factory=StoreConnection)
    found: tuple[Inherited, ...] = ()
    problems: tuple[Problem, ...] = ()


def read_inherited(environ: Mapping[str, str], ours: frozenset[str], engine: str = "native") -> InheritedSettings:
    """``ours``: the settings that are given in pgbackup's own layers. Raises nothing: what is wrong is a problem."""
    reader = _Reader(environ, ours, engine)
    reader.repository()
    reader.encryption()
    reader.numbers()
    reader.connection()
    reader.rest()
    found = tuple(sorted(reader.found.values(), key=lambda each: each.variable))
    return InheritedSettings(reader.layer, reader.store, found, tuple(reader.problems))


class _Reader:
    """Takes one variable after another, and notes what became of each."""

    def __init__(self, environ: Mapping[str, str], ours: frozenset[str], engine: str) -> None:
        self._environ = environ
        self._engine = engine
        self._ours = ours
        self.layer = Layer()
        self.store = StoreConnection()
        self.found: dict[str, Inherited] = {}
        self.problems: list[Problem] = []

    def repository(self) -> None:
        if self._engine == "wal-g" and (file := place.config_file_at_home(self._environ)) is not None:
            text = "wal-g would read it, and pgbackup does not: set what it says in the environment, and move it away"
            self.problems.append(Problem("", f"{file}: {text}"))
            return
        if "repository" in self._ours:
            self._overridden((*place.PREFIXES, *place.ELSEWHERE, place.STORAGE_PREFIX), "repository")
            return
        where = place.find_place(self._environ)
        self.problems += where.problems
        if where.url:
            self._take("repository", where.url, *where.variables)

    def encryption(self) -> None:
        ours = "encryption_key" in self._ours
        found = encryption.find_encryption(self._environ, ours=ours, engine=self._engine)
        self.problems += found.problems
        if ours:
            names = (encryption.KEY, encryption.KEY_PATH, encryption.KEY_TRANSFORM, *encryption.CLIENT_SIDE)
            self._overridden(names, "encryption_key")
        for name in encryption.honoured_by_tool(self._environ, self._engine):
            self._note(name, "understood", f"by {self._engine}, which encrypts")
        for name in found.variables:
            setting = "encryption_key_transform" if name == encryption.KEY_TRANSFORM else "encryption_key"
            if setting in self._ours:
                self._overridden((name,), setting)
            else:
                self._note(name, "understood", f"as {variable_name(setting)}")
        self.layer.values.update(found.layer.values)
        self.layer.origins.update(found.layer.origins)

    def numbers(self) -> None:
        self._follow("WALG_COMPRESSION_METHOD", "compression", self._compression)
        self._follow("WALG_UPLOAD_CONCURRENCY", "upload_concurrency", lambda text: _at_most(text, _MOST_UPLOADS))
        self._follow("WALG_DOWNLOAD_CONCURRENCY", "download_concurrency", lambda text: _at_most(text, _MOST_DOWNLOADS))
        self._follow("WALG_DISK_RATE_LIMIT", "backup_rate", _bytes_per_second)
        self._follow("WALG_NETWORK_RATE_LIMIT", "upload_rate", _bytes_per_second)
        if self._environ.get("WALG_DELTA_MAX_STEPS"):
            self._note("WALG_DELTA_MAX_STEPS", "understood", "as 0: every base backup is a full one")

    def connection(self) -> None:
        given = [name for name in ENDPOINTS if self._environ.get(name)]
        if (boto3 := self._first(_BOTO3_ENDPOINTS)) is not None:
            for variable in given:
                self._note(variable, "overridden", f"{boto3} counts")
        elif given:
            self._endpoint(given)
        self._path_style()
        if not self._environ.get("AWS_CA_BUNDLE") and (name := self._first(CA_FILES)) is not None:
            self.store = replace(self.store, ca_file=self._environ[name])
            self._note(name, "understood", "as AWS_CA_BUNDLE")

    def rest(self) -> None:
        for name in self._environ:
            if name.startswith(_PREFIXES) and name not in self.found and self._environ[name] != "":
                why, loses = why_ignored(name)
                self._note(name, "ignored", why, loses=loses)

    # -- one variable -----------------------------------------------------------------------------------------------

    def _endpoint(self, given: list[str]) -> None:
        read: dict[str, StoreConnection] = {}
        for name in given:
            text = self._environ[name]
            try:
                is_wale = name.startswith("WALE_")
                read[name] = parse_wale_endpoint(text) if is_wale else StoreConnection(parse_endpoint(text), "auto")
            except ValueError as exc:
                self.problems.append(Problem("", f"{name}: {exc}"))
        if len({each.endpoint for each in read.values()}) > 1:
            names = " and ".join(read)
            self.problems.append(Problem("", f"{names} name different stores: set AWS_ENDPOINT_URL to the one meant"))
        for name, found in read.items():
            self.store = found if self.store.endpoint is None else self.store
            self._note(name, "understood", "as AWS_ENDPOINT_URL")

    def _path_style(self) -> None:
        name = self._first(PATH_STYLE)
        if name is None:
            return
        try:
            forced = parse_bool(self._environ[name])
        except ValueError as exc:
            self.problems.append(Problem("", f"{name}: {exc}", got=self._environ[name]))
            return
        if forced:
            self.store = replace(self.store, addressing="path")
        self._note(name, "understood", f"the bucket stands in {'the path' if forced else 'what fits the endpoint'}")

    def _compression(self, text: str) -> str | None:
        method = text.strip().lower()
        if method in ("lz4", "none"):
            return method
        if method == "zstd":
            level = self._environ.get("WALG_ZSTD_LEVEL", "")
            if level:
                self._note("WALG_ZSTD_LEVEL", "understood", "as the level in PGBACKUP_COMPRESSION")
            return f"zstd:{_ZSTD_LEVELS.get(level.strip().lower() or 'default', 3)}"
        if method in ("brotli", "lzma"):
            self._note("WALG_COMPRESSION_METHOD", "ignored", "pgbackup writes zstd instead, which WAL-G reads")
            return None
        raise ValueError("expected lz4, zstd, none, brotli or lzma")

    def _follow(self, name: str, setting: str, convert: Callable[[str], str | None]) -> None:
        text = self._environ.get(name)
        if not text:
            return
        if setting in self._ours:
            self._overridden((name,), setting)
            return
        try:
            value = convert(text)
        except ValueError as exc:
            self.problems.append(Problem("", f"{name}: {exc}", got=text))
            return
        if value is not None:
            self._take(setting, value, name)

    def _take(self, setting: str, value: str, *names: str) -> None:
        self.layer.values[setting] = value
        self.layer.origins[setting] = " and ".join(names)
        for name in names:
            self._note(name, "understood", f"as {variable_name(setting)}")

    def _overridden(self, names: tuple[str, ...], setting: str) -> None:
        for name in names:
            if self._environ.get(name):
                self._note(name, "overridden", f"{variable_name(setting)} counts")

    def _first(self, names: tuple[str, ...]) -> str | None:
        return next((name for name in names if self._environ.get(name)), None)

    def _note(self, name: str, use: Use, text: str, *, loses: bool = False) -> None:
        self.found[name] = Inherited(name, use, text, loses)


def _at_most(text: str, most: int) -> str:
    """A count of theirs, cut to what ours allows: fewer at once is slower and nothing else."""
    if not _NUMBER.fullmatch(text.strip()) or int(text) < 1:
        raise ValueError("expected a whole number from 1")
    return str(min(int(text), most))


def _bytes_per_second(text: str) -> str:
    if not _NUMBER.fullmatch(text.strip()) or int(text) < 1:
        raise ValueError("expected bytes per second, a whole number from 1")
    return f"{int(text)}B/s"
