"""The tool's environment: the same repository, no other, and never plaintext by accident."""

from __future__ import annotations

from typing import Any

import pytest

from pgbackup.engines.wale.dialects import dialect
from pgbackup.engines.wale.environment import StorageSettings, tool_environment
from pgbackup.errors import ConfigError

S3 = "s3://bucket/main"
KEY = "00" * 32


def env(tool: str, environ: dict[str, str] | None = None, repository: str = S3, **settings: Any) -> dict[str, str]:
    libpq = {"PGHOST": "/run/postgresql", "PGPASSWORD": "secret"}
    return tool_environment(dialect(tool), StorageSettings(repository, **settings), libpq, environ or {})


def test_wal_e_on_s3_and_on_files() -> None:
    found = env("wal-e", {"AWS_ENDPOINT_URL": "https://store:9000/", "AWS_SESSION_TOKEN": "t", "PATH": "/bin"})
    assert found["WALE_S3_PREFIX"] == S3
    assert found["WALE_S3_ENDPOINT"] == "https+path://store:9000"
    assert found["AWS_SECURITY_TOKEN"] == "t"
    assert found["AWS_REGION"] == "us-east-1"
    assert found["WALE_LOG_DESTINATION"] == "stderr"
    assert (found["PGHOST"], found["PGPASSWORD"], found["PATH"]) == ("/run/postgresql", "secret", "/bin")
    assert env("wal-e", repository="file:///srv/b%20c/")["WALE_FILE_PREFIX"] == "file://localhost/srv/b c"


def test_wal_g_on_s3_and_on_files() -> None:
    found = env("wal-g", {"AWS_ENDPOINT_URL_S3": "http://store", "AWS_DEFAULT_REGION": "eu-1", "AWS_CA_BUNDLE": "/ca"})
    assert found["WALG_S3_PREFIX"] == S3
    assert (found["AWS_ENDPOINT"], found["AWS_S3_FORCE_PATH_STYLE"]) == ("http://store", "true")
    assert (found["AWS_REGION"], found["WALG_S3_CA_CERT_FILE"]) == ("eu-1", "/ca")
    assert found["WALG_PREVENT_WAL_OVERWRITE"] == "true"
    found = env("wal-g", repository="file:///srv/x", compression="lz4", backup_rate=5, upload_rate=6)
    assert (found["WALG_FILE_PREFIX"], found["WALG_COMPRESSION_METHOD"]) == ("/srv/x", "lz4")
    assert (found["WALG_DISK_RATE_LIMIT"], found["WALG_NETWORK_RATE_LIMIT"]) == ("5", "6")


@pytest.mark.parametrize(("level", "name"), [(1, "fastest"), (3, "default"), (10, "better"), (19, "best")])
def test_levels_of_zstd_have_names_for_wal_g(level: int, name: str) -> None:
    assert env("wal-g", compression=f"zstd:{level}")["WALG_ZSTD_LEVEL"] == name


@pytest.mark.parametrize("tool", ["wal-e", "wal-g"])
def test_nothing_leads_it_elsewhere_and_our_secrets_stay_here(tool: str) -> None:
    given = {
        "WALE_FILE_PREFIX": "file:///elsewhere", "WALG_GS_PREFIX": "gs://elsewhere", "WALG_S3_PREFIX": "s3://elsewhere",
        "WALG_STORAGE_PREFIX": "elsewhere", "PGBACKUP_WEBHOOK_SECRET": "x", "SENTRY_DSN": "x",
        "WALG_S3_STORAGE_CLASS": "STANDARD_IA",
    }  # fmt: skip
    found = env(tool, given)
    assert "elsewhere" not in " ".join(found.values())
    assert not any(name.startswith(("PGBACKUP_", "SENTRY_")) for name in found)
    assert found["WALG_S3_STORAGE_CLASS"] == "STANDARD_IA", "the operator's own word to the tool"


def test_our_key_is_the_tools_or_stops_us() -> None:
    found = env("wal-g", {"WALG_LIBSODIUM_KEY_PATH": "/other"}, encryption_key=KEY, key_transform="hex")
    assert (found["WALG_LIBSODIUM_KEY"], found["WALG_LIBSODIUM_KEY_TRANSFORM"]) == (KEY, "hex")
    assert "WALG_LIBSODIUM_KEY_PATH" not in found
    with pytest.raises(ConfigError, match="cannot be used by wal-e") as caught:
        env("wal-e", encryption_key=KEY)
    assert KEY not in str(caught.value)
    assert KEY not in repr(StorageSettings(S3, encryption_key=KEY))


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        ({"WALE_GPG_KEY_ID": "ABC"}, {}, "would store everything unencrypted"),
        ({"WALG_GPG_KEY_ID": "ABC"}, {}, "would store everything unencrypted"),
        ({"WALG_PGP_KEY_PATH": "/key"}, {"encryption_key": KEY}, "two keys"),
        ({"WALG_LIBSODIUM_KEY": KEY}, {}, "could not be read by pgbackup"),
    ],
)
def test_wal_g_never_stores_plaintext_by_accident(
    given: dict[str, str], settings: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        env("wal-g", given, **settings)


def test_gnupg_is_the_tools_own() -> None:
    assert env("wal-e", {"WALE_GPG_KEY_ID": "ABC"})["WALE_GPG_KEY_ID"] == "ABC"
    both = {"WALG_GPG_KEY_ID": "ABC", "GPG_KEY_ID": "ABC"}
    assert env("wal-g", both)["GPG_KEY_ID"] == "ABC"
