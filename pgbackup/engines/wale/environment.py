"""The environment of the tool, derived from our settings: one truth, so that both read and write the same repository.

What the operator has set for the tool itself goes through (a storage class, GnuPG); a variable that would lead it to
another place is taken out. Encryption fails closed: a key of ours that the tool cannot use stops us, and so does one
of its own that it would pass over (WAL-G since 3.0.0 looks at GPG_KEY_ID only, see repository-format, 9.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from pgbackup.engines.wale.dialects import Dialect
from pgbackup.errors import ConfigError

_OURS = ("PGBACKUP_", "SENTRY_")
_STORAGES = ("S3", "FILE", "GS", "AZ", "SWIFT", "WABS", "SSH", "OSS", "STORAGE")
"""What ..._PREFIX is for; WALG_STORAGE_PREFIX, a folder below the prefix, is in the repository's URL already."""
_OTHER_CRYPTO = (
    "WALG_PGP_KEY", "WALG_PGP_KEY_PATH", "WALG_CSE_KMS_ID", "YC_CSE_KMS_KEY_ID", "WALG_ENVELOPE_PGP_KEY",
    "WALG_ENVELOPE_PGP_KEY_PATH", "GPG_KEY_ID",
)  # fmt: skip
_GPG = ("WALE_GPG_KEY_ID", "WALG_GPG_KEY_ID")
_SODIUM = ("WALG_LIBSODIUM_KEY", "WALG_LIBSODIUM_KEY_PATH", "WALG_LIBSODIUM_KEY_TRANSFORM")


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """What of our settings the tool must know. Rates in bytes per second; the key as it is written."""

    repository: str
    compression: str = "zstd:1"
    encryption_key: str | None = field(default=None, repr=False)
    key_transform: str = "none"
    part_bytes: int = 256 << 20
    upload_concurrency: int = 4
    backup_rate: int | None = None
    upload_rate: int | None = None
    endpoint: str | None = None


def tool_environment(
    dialect: Dialect, settings: StorageSettings, libpq: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, str]:
    """``libpq``: the variables that say how to reach the server. Raises ConfigError for what cannot be honoured."""
    env = {name: value for name, value in environ.items() if not name.startswith(_OURS)}
    for storage in _STORAGES:
        for prefix in ("WALG_", "WALE_", ""):
            env.pop(f"{prefix}{storage}_PREFIX", None)
    for name in _SODIUM:
        env.pop(name, None)
    env.update(libpq)
    env.update(dialect.environment())
    env.update(_wal_e(settings, environ) if dialect.name == "wal-e" else _wal_g(settings, environ))
    return env


def _wal_e(settings: StorageSettings, environ: Mapping[str, str]) -> dict[str, str]:
    if settings.encryption_key is not None:
        raise ConfigError(
            "PGBACKUP_ENCRYPTION_KEY cannot be used by wal-e, which knows GnuPG only",
            hint="Set WALE_GPG_KEY_ID instead and leave the key out, or use PGBACKUP_ENGINE=wal-g or native.",
        )
    scheme, place = _place(settings.repository)
    if scheme == "file":
        return {"WALE_FILE_PREFIX": f"file://localhost{place}"}
    env = {"WALE_S3_PREFIX": f"s3://{place}"}
    if endpoint := _endpoint(settings, environ):
        parts = urlsplit(endpoint)
        env["WALE_S3_ENDPOINT"] = f"{parts.scheme}+path://{parts.netloc}"
    if environ.get("AWS_SESSION_TOKEN"):
        env["AWS_SECURITY_TOKEN"] = environ["AWS_SESSION_TOKEN"]
    return env | _region(settings, environ)


def _wal_g(settings: StorageSettings, environ: Mapping[str, str]) -> dict[str, str]:
    _refuse_plaintext(settings, environ)
    method, _, level = settings.compression.partition(":")
    env = {
        "WALG_COMPRESSION_METHOD": method,
        "WALG_TAR_SIZE_THRESHOLD": str(settings.part_bytes),
        "WALG_UPLOAD_CONCURRENCY": str(settings.upload_concurrency),
    }
    if level:
        env["WALG_ZSTD_LEVEL"] = _zstd_level(int(level))
    if settings.backup_rate is not None:
        env["WALG_DISK_RATE_LIMIT"] = str(settings.backup_rate)
    if settings.upload_rate is not None:
        env["WALG_NETWORK_RATE_LIMIT"] = str(settings.upload_rate)
    if settings.encryption_key is not None:
        env |= {
            "WALG_LIBSODIUM_KEY": settings.encryption_key,
            "WALG_LIBSODIUM_KEY_TRANSFORM": settings.key_transform,
        }
    scheme, place = _place(settings.repository)
    if scheme == "file":
        return env | {"WALG_FILE_PREFIX": place}
    env["WALG_S3_PREFIX"] = f"s3://{place}"
    if endpoint := _endpoint(settings, environ):
        env |= {"AWS_ENDPOINT": endpoint, "AWS_S3_FORCE_PATH_STYLE": "true"}
    if environ.get("AWS_CA_BUNDLE"):
        env["WALG_S3_CA_CERT_FILE"] = environ["AWS_CA_BUNDLE"]
    return env | _region(settings, environ)


def _zstd_level(level: int) -> str:
    """WAL-G knows four levels by name, which its library says are about 1, 3, 7 and 11 of zstd."""
    names = {1: "fastest", 3: "default", 7: "better", 11: "best"}
    return names[max(about for about in names if about <= level)]


def _refuse_plaintext(settings: StorageSettings, environ: Mapping[str, str]) -> None:
    """WAL-G chooses one encryption by the first variable that it finds, and none by what it passes over."""
    gpg = [name for name in _GPG if environ.get(name)]
    if gpg and not environ.get("GPG_KEY_ID"):
        raise ConfigError(
            f"{gpg[0]} is set, and wal-g since 3.0.0 passes it over: it would store everything unencrypted",
            hint="Set GPG_KEY_ID to the same key as well, or use WALG_PGP_KEY_PATH or PGBACKUP_ENCRYPTION_KEY.",
        )
    other = [name for name in _OTHER_CRYPTO if environ.get(name)]
    if settings.encryption_key is not None and other:
        raise ConfigError(
            f"two keys: PGBACKUP_ENCRYPTION_KEY and {other[0]}, of which wal-g would use the second",
            hint="Leave one of them out.",
        )
    sodium = [name for name in _SODIUM[:2] if environ.get(name)]
    if settings.encryption_key is None and sodium:
        raise ConfigError(
            f"{sodium[0]} is set and PGBACKUP_ENCRYPTION_KEY is not: what wal-g stores could not be read by pgbackup",
            hint="Give the same key as PGBACKUP_ENCRYPTION_KEY; wal-g gets it from there.",
        )


def _place(repository: str) -> tuple[str, str]:
    """``("file", "/path")`` or ``("s3", "bucket/prefix")``."""
    scheme, _, rest = repository.partition("://")
    return (scheme, unquote(rest).rstrip("/")) if scheme == "file" else (scheme, rest.rstrip("/"))


def _endpoint(settings: StorageSettings, environ: Mapping[str, str]) -> str:
    found = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or settings.endpoint
    return (found or "").rstrip("/")


def _region(settings: StorageSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """The tools read AWS_REGION only; stores other than Amazon's take any."""
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if region is None and _endpoint(settings, environ):
        region = "us-east-1"
    return {"AWS_REGION": region} if region else {}
