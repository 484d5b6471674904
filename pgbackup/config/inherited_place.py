"""Where WAL-E's and WAL-G's variables say that the archive lies, as a repository URL of ours."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pgbackup.config.problems import Problem

S3_PREFIXES = ("WALG_S3_PREFIX", "WALE_S3_PREFIX")
FILE_PREFIXES = ("WALG_FILE_PREFIX", "WALE_FILE_PREFIX")
PREFIXES = (*S3_PREFIXES, *FILE_PREFIXES)
STORAGE_PREFIX = "WALG_STORAGE_PREFIX"
CONFIG_PATH = "WALG_CONFIG_PATH"
ELSEWHERE = {
    f"{tool}_{kind}_PREFIX": store
    for tool in ("WALG", "WALE")
    for kind, store in (
        ("GS", "Google Cloud Storage"),
        ("AZ", "Azure"),
        ("WABS", "Azure"),
        ("SWIFT", "Swift"),
        ("SSH", "SSH"),
        ("OSS", "Alibaba OSS"),
    )
}
_CONFIG_ENDINGS = ("json", "toml", "yaml", "yml", "properties", "props", "prop", "hcl", "dotenv", "env", "ini")
"""What WAL-G's library for settings takes behind ``.walg.``."""


@dataclass(frozen=True, slots=True)
class Place:
    """``url`` is empty when their variables name no place; ``variables`` are those that name it."""

    url: str = ""
    variables: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def find_place(environ: Mapping[str, str]) -> Place:
    """The one place that their variables name. Two places, or one of a kind that we cannot use, are a problem:
    the archive must not end up, or be looked for, where nobody expects it."""
    named = {name: _url(name, environ[name]) for name in PREFIXES if environ.get(name)}
    elsewhere = [name for name in ELSEWHERE if environ.get(name)]
    if elsewhere:
        stores = ", ".join(sorted({ELSEWHERE[name] for name in elsewhere}))
        text = f"{' and '.join(elsewhere)}: pgbackup keeps backups in S3 or in a directory, not in {stores}"
        return Place(problems=(Problem("", text),))
    if not named:
        return Place()
    if len(set(named.values())) > 1:
        names = " and ".join(named)
        return Place(
            problems=(Problem("", f"{names} name different places: set PGBACKUP_REPOSITORY to the one meant"),)
        )
    if (file := config_file(environ)) is not None:
        text = f"{file}: configuration files of WAL-G are not read: set what it says in the environment"
        return Place(problems=(Problem("", f"{text}, or set PGBACKUP_REPOSITORY if pgbackup is to ignore it"),))
    url, variables = next(iter(named.values())), tuple(named)
    if below := environ.get(STORAGE_PREFIX, "").strip("/"):
        below = _quoted(below) if url.startswith("file:") else below
        url, variables = f"{url}/{below}", (*variables, STORAGE_PREFIX)
    return Place(url, variables)


def config_file(environ: Mapping[str, str]) -> Path | None:
    """WAL-G's own configuration file, if there is one: it may say anything, encryption among it."""
    return Path(environ[CONFIG_PATH]) if environ.get(CONFIG_PATH) else config_file_at_home(environ)


def config_file_at_home(environ: Mapping[str, str]) -> Path | None:
    """The file that WAL-G reads whatever the environment says: in its user's home, which some of its builds take from
    the list of users and not from HOME."""
    homes = [environ.get("HOME", ""), _home_in_list_of_users()]
    usual = (Path(home) / f".walg.{ending}" for home in homes if home for ending in _CONFIG_ENDINGS)
    return next((path for path in usual if path.is_file()), None)


def _home_in_list_of_users() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def _url(name: str, text: str) -> str:
    text = text.strip()
    if name in FILE_PREFIXES:
        return f"file://{_quoted(text.removeprefix('file://localhost').rstrip('/') or '/')}"
    # What is no s3:// URL is refused with the other settings.
    scheme, mark, rest = text.partition("://")
    return f"{scheme}://{rest.strip('/')}" if mark else text


def _quoted(path: str) -> str:
    """Theirs is a path, ours a URL: a % or a brace in it is one."""
    return quote(path, errors="surrogateescape")
