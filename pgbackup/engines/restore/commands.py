"""The commands that Postgres runs during recovery.

Nothing that it runs once per segment may start Python: ``staged`` is a plain ``cp``, ``on demand`` takes what has been
fetched ahead and starts ``pgbackup wal-fetch`` only where that is not there. Secrets are never written into a
command: it names the repository and the files that hold them, the rest must be in the server's environment.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pgbackup
from pgbackup.config.problems import variable_name
from pgbackup.engines.restore.wal import FOLDER

STAGED_COMMAND = f"cp {FOLDER}/%f %p"
END_COMMAND = f"rm -rf {FOLDER}"
AHEAD = "ahead"

_CARRIED = (
    "PGBACKUP_CONFIG", "PGBACKUP_ENCRYPTION_KEY_FILE", "PGBACKUP_ENCRYPTION_KEY_TRANSFORM",
    "PGBACKUP_ACCEPT_UNENCRYPTED", "PGBACKUP_ACCEPT_GNUPG", "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ENDPOINT", "WALE_S3_ENDPOINT",
    "AWS_S3_FORCE_PATH_STYLE", "WALG_S3_CA_CERT_FILE", "WALG_LIBSODIUM_KEY_PATH",
    "PGBACKUP_ENGINE", "PGBACKUP_TOOL", "WALE_GPG_KEY_ID", "WALG_GPG_KEY_ID", "GPG_KEY_ID", "GNUPGHOME",
)  # fmt: skip
_FILES = (
    "PGBACKUP_ENCRYPTION_KEY_FILE", "AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE", "WALG_S3_CA_CERT_FILE", "WALG_LIBSODIUM_KEY_PATH",
)  # fmt: skip
_SECRETS = (
    "PGBACKUP_ENCRYPTION_KEY", "WALG_LIBSODIUM_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
)  # fmt: skip


def on_demand_command(repository: str, environ: Mapping[str, str]) -> str:
    """The restore_command for WAL on demand."""
    ahead = f"mv {FOLDER}/{AHEAD}/%f %p 2>/dev/null"
    history = f"cp {FOLDER}/%f %p 2>/dev/null"
    return f"{ahead} || {history} || {fetch_command(repository, environ)} --tail %f %p"


def fetch_command(repository: str, environ: Mapping[str, str]) -> str:
    """``pgbackup wal-fetch`` as a shell command that works from anywhere, percent signs doubled for Postgres."""
    carried = {name: environ[name] for name in _CARRIED if environ.get(name)}
    carried["PGBACKUP_REPOSITORY"] = repository
    root = Path(pgbackup.__file__).resolve().parents[1]
    if root.name not in ("site-packages", "dist-packages"):
        carried["PYTHONPATH"] = str(root)
    words = ["env", *(f"{name}={value}" for name, value in sorted(carried.items()))]
    words += [sys.executable, "-P", "-m", "pgbackup", "wal-fetch"]
    return shlex.join(words).replace("%", "%%")


def carried_environment(
    environ: Mapping[str, str],
    *,
    config: Path | None,
    transform: str,
    accepted: Iterable[str] = (),
    engine: str = "native",
    tool: str = "",
) -> dict[str, str]:
    """The environment that the command needs, from anywhere: files by absolute paths, and what the settings came to.

    ``config``: the TOML file that was read, whoever named it; ``transform``: how the encryption key is written;
    ``accepted``: the settings that say what is read with a key all the same; ``tool``: the program of the engine.
    """
    found = dict(environ)
    for name in _FILES:
        if found.get(name):
            found[name] = str(Path(found[name]).absolute())
    if config is not None:
        found["PGBACKUP_CONFIG"] = str(config.absolute())
    if transform != "none":
        found["PGBACKUP_ENCRYPTION_KEY_TRANSFORM"] = transform
    found |= {variable_name(setting): "yes" for setting in accepted}
    if engine != "native":
        found["PGBACKUP_ENGINE"], found["PGBACKUP_TOOL"] = engine, tool
    return found


def secrets_needed(environ: Mapping[str, str]) -> list[str]:
    """Names of secrets that the restore got by its environment, and that the server's must have as well."""
    return [name for name in _SECRETS if environ.get(name)]
