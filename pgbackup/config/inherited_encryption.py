"""Encryption as WAL-E's and WAL-G's variables ask for it: libsodium's key is ours as well, everything else stops us.

Whoever has set one of these variables believes that what is stored is encrypted. So one that cannot be honoured is a
problem, never a remark, unless pgbackup's own encryption is configured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pgbackup.config.problems import Problem
from pgbackup.config.sources import Layer, read_secret
from pgbackup.config.values import parse_bool

KEY, KEY_PATH, KEY_TRANSFORM = "WALG_LIBSODIUM_KEY", "WALG_LIBSODIUM_KEY_PATH", "WALG_LIBSODIUM_KEY_TRANSFORM"
_OPENPGP = "encryption with OpenPGP is not written by pgbackup"
_AT_STORE = "encryption by the store is not asked for by pgbackup"
CLIENT_SIDE = {
    "WALG_PGP_KEY": _OPENPGP,
    "WALG_PGP_KEY_PATH": _OPENPGP,
    "GPG_KEY_ID": _OPENPGP,
    "WALG_GPG_KEY_ID": _OPENPGP,
    "WALE_GPG_KEY_ID": _OPENPGP,
    "WALG_ENVELOPE_PGP_KEY": _OPENPGP,
    "WALG_ENVELOPE_PGP_KEY_PATH": _OPENPGP,
    "WALG_ENVELOPE_PGP_YC_CSE_KMS_KEY_ID": _OPENPGP,
    "WALG_CSE_KMS_ID": "encryption with AWS KMS is not written by pgbackup",
    "YC_CSE_KMS_KEY_ID": "encryption with Yandex KMS is not written by pgbackup",
}
AT_STORE = {
    f"{prefix}{name}": _AT_STORE
    for prefix in ("", "WALG_", "WALE_")
    for name in ("S3_SSE", "S3_SSE_C", "S3_SSE_KMS_ID")
}
_NO_CHOICE = "WALG_ENVELOPE_PGP_YC_CSE_KMS_KEY_ID"
"""It serves WALG_ENVELOPE_PGP_KEY; by itself it makes WAL-G encrypt nothing (ConfigureCrypterForSpecificConfig)."""
_ENVELOPE = ("WALG_ENVELOPE_PGP_KEY", "WALG_ENVELOPE_PGP_KEY_PATH")
_BY_WAL_G = frozenset({*CLIENT_SIDE, *AT_STORE})
HONOURED = {"native": frozenset[str](), "wal-e": frozenset({"WALE_GPG_KEY_ID"}), "wal-g": _BY_WAL_G}
"""What the tool of an engine does itself, so that nothing becomes plaintext."""
_HINTS = {
    _AT_STORE: "make it the bucket's default and unset the variable",
}
_USUAL_HINT = "unset it, and set PGBACKUP_ENCRYPTION_KEY to encrypt with libsodium"


@dataclass(frozen=True)
class Encryption:
    """``layer``: key and transform, if theirs are used. ``variables``: those that are."""

    layer: Layer = field(default_factory=Layer)
    variables: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def find_encryption(environ: Mapping[str, str], *, ours: bool, engine: str = "native") -> Encryption:
    """``ours``: a key of pgbackup's own is configured, so nothing can become plaintext and theirs do not count."""
    asked = _unhonoured(environ, ours=ours)
    honoured = honoured_by_tool(environ, engine)
    problems = [Problem("", f"{name}: {_refusal(name, why, engine)}") for name, why in asked if name not in honoured]
    if ours:
        return Encryption(problems=tuple(problems))
    layer, used = Layer(), []
    for name in (KEY, KEY_PATH):
        if environ.get(name) == "":
            problems.append(Problem("", f"{name}: is empty: leave it out if none is wanted"))
    if environ.get(KEY):
        layer.values["encryption_key"], layer.origins["encryption_key"] = environ[KEY], KEY
        used.append(KEY)
    elif environ.get(KEY_PATH):
        used.append(KEY_PATH)
        problems += _take_file(layer, environ[KEY_PATH])
    if used and environ.get(KEY_TRANSFORM):
        layer.values["encryption_key_transform"] = environ[KEY_TRANSFORM]
        layer.origins["encryption_key_transform"] = KEY_TRANSFORM
        used.append(KEY_TRANSFORM)
    return Encryption(layer, tuple(used), tuple(problems))


def honoured_by_tool(environ: Mapping[str, str], engine: str) -> list[str]:
    """The variables that ask for encryption and that the engine's tool obeys: an empty one it takes for none."""
    names = (name for name in HONOURED.get(engine, frozenset()) if environ.get(name) and _asks(environ[name]))
    has_envelope = any(environ.get(name) for name in _ENVELOPE)
    return sorted(name for name in names if name != _NO_CHOICE or has_envelope)


def _unhonoured(environ: Mapping[str, str], *, ours: bool) -> list[tuple[str, str]]:
    wanted = {} if ours else CLIENT_SIDE
    return [(name, why) for name, why in {**wanted, **AT_STORE}.items() if _asks(environ.get(name))]


def _asks(value: str | None) -> bool:
    """Whether a variable asks for encryption. An empty one does: a key that came out empty was meant to be one."""
    if value is None:
        return False
    try:
        return parse_bool(value)
    except ValueError:
        return True


def _refusal(name: str, why: str, engine: str) -> str:
    """Why a variable stops us, and what to do."""
    if name in HONOURED.get(engine, frozenset()):
        return f"{engine} takes what it says for no key, and would encrypt nothing: give the key, or unset it"
    return f"{why}: {_HINTS.get(why, _USUAL_HINT)}"


def _take_file(layer: Layer, path: str) -> list[Problem]:
    """WAL-G cuts white space off both ends of the file."""
    try:
        key = read_secret(Path(path)).strip()
    except OSError as exc:
        return [Problem("", f"{KEY_PATH}: cannot be read: {exc.strerror or exc}", got=path)]
    except ValueError as exc:
        return [Problem("", f"{KEY_PATH}: {exc}", got=path)]
    if not key:
        return [Problem("", f"{KEY_PATH}: is empty", got=path)]
    layer.values["encryption_key"], layer.origins["encryption_key"] = key, path
    return []
