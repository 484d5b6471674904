"""The variables of WAL-E and WAL-G: what they come to, that ours win, and that no encryption is lost on the way."""

from __future__ import annotations

import pytest

from pgbackup.config.inherited_encryption import AT_STORE, CLIENT_SIDE
from pgbackup.config.settings import Settings, load_settings
from pgbackup.config.store_connection import StoreConnection
from pgbackup.config.table import effective
from pgbackup.errors import ConfigError

PLACE = {"WALG_S3_PREFIX": "s3://bucket/prefix"}
KEY = "hunter2-hunter2-hunter2-hunter2"


def load(**environ: str) -> Settings:
    return load_settings(environ=environ)


def problem(**environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**environ)
    return str(caught.value)


def uses(settings: Settings) -> dict[str, str]:
    return {each.variable: each.use for each in settings.inherited}


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"WALG_S3_PREFIX": "s3://bucket/some/where/"}, "s3://bucket/some/where"),
        ({"WALE_S3_PREFIX": "s3://bucket"}, "s3://bucket"),
        ({"WALG_S3_PREFIX": "s3://bucket/x", "WALE_S3_PREFIX": "s3://bucket/x/"}, "s3://bucket/x"),
        ({"WALG_FILE_PREFIX": "/backups/main"}, "file:///backups/main"),
        ({"WALE_FILE_PREFIX": "file://localhost/backups/main/"}, "file:///backups/main"),
        ({"WALG_FILE_PREFIX": "/srv/a%20b c{pg_major}"}, "file:///srv/a%2520b%20c%7Bpg_major%7D"),
        ({"WALG_FILE_PREFIX": "/x", "WALG_STORAGE_PREFIX": "100%"}, "file:///x/100%25"),
        ({"WALG_S3_PREFIX": "s3://bucket/x", "WALG_STORAGE_PREFIX": "/below/"}, "s3://bucket/x/below"),
        ({"WALG_S3_PREFIX": "", "WALE_FILE_PREFIX": "/x"}, "file:///x"),
    ],
)
def test_their_prefix_is_our_repository(environ: dict[str, str], url: str) -> None:
    settings = load(**environ)
    assert settings.repository == url
    assert uses(settings) == dict.fromkeys((name for name in environ if environ[name]), "understood")
    assert settings.origin("repository") == " and ".join(name for name in environ if environ[name])


def test_ours_win(tmp_path) -> None:
    theirs = {
        **PLACE, "WALE_GS_PREFIX": "gs://x", "WALG_COMPRESSION_METHOD": "lz4", "WALG_UPLOAD_CONCURRENCY": "9",
        "AWS_ENDPOINT": "http://theirs", "WALG_LIBSODIUM_KEY": "x" * 32, "WALG_LIBSODIUM_KEY_TRANSFORM": "hex",
    }  # fmt: skip
    ours = {
        "PGBACKUP_REPOSITORY": "s3://ours", "PGBACKUP_COMPRESSION": "none", "PGBACKUP_UPLOAD_CONCURRENCY": "2",
        "AWS_ENDPOINT_URL": "http://ours", "PGBACKUP_ENCRYPTION_KEY": KEY,
    }  # fmt: skip
    settings = load(**theirs, **ours)
    assert (settings.repository, settings.compression, settings.upload_concurrency) == ("s3://ours", "none", 2)
    assert settings.encryption_key is not None
    assert settings.encryption_key.get_secret_value() == KEY
    assert settings.encryption_key_transform == "none", "a transform of theirs is not for a key of ours"
    assert settings.store_connection == StoreConnection()
    assert set(uses(settings).values()) == {"overridden"}
    toml = tmp_path / "pgbackup.toml"
    toml.write_text('repository = "file:///toml"\n')
    assert load_settings(environ=PLACE, toml=toml).repository == "file:///toml"
    assert load_settings(environ=PLACE, overrides={"repository": "file:///flag"}).repository == "file:///flag"


def test_two_places_are_refused() -> None:
    assert problem(WALG_S3_PREFIX="s3://bucket/a", WALE_FILE_PREFIX="/b") == (
        "WALG_S3_PREFIX and WALE_FILE_PREFIX name different places: set PGBACKUP_REPOSITORY to the one meant"
    )


def test_a_store_that_we_do_not_speak_is_named() -> None:
    assert "Google Cloud Storage" in problem(WALG_GS_PREFIX="gs://bucket/x")
    assert "WALG_AZ_PREFIX" in problem(**PLACE, WALG_AZ_PREFIX="azure://x")


def test_a_bad_prefix_is_shown_with_its_variable_and_without_a_password() -> None:
    text = problem(WALG_S3_PREFIX="s3://key:hunter2@bucket/x")
    assert "credentials and endpoint do not go into the URL" in text
    assert "WALG_S3_PREFIX" in text
    assert "hunter2" not in text


def test_a_configuration_file_of_wal_g_is_not_passed_over(tmp_path) -> None:
    (tmp_path / ".walg.json").write_text('{"WALG_LIBSODIUM_KEY": "x"}')
    assert ".walg.json: configuration files of WAL-G are not read" in problem(**PLACE, HOME=str(tmp_path))
    assert "/etc/wal-g.yaml: configuration files" in problem(**PLACE, WALG_CONFIG_PATH="/etc/wal-g.yaml")
    assert ".walg.json" in problem(HOME=str(tmp_path)), "the prefix may be in there"
    assert load(PGBACKUP_REPOSITORY="file:///x", HOME=str(tmp_path)).repository == "file:///x"


@pytest.mark.parametrize(
    ("environ", "compression"),
    [
        ({}, "zstd:1"),
        ({"WALG_COMPRESSION_METHOD": "lz4"}, "lz4"),
        ({"WALG_COMPRESSION_METHOD": "none"}, "none"),
        ({"WALG_COMPRESSION_METHOD": "zstd"}, "zstd:3"),
        ({"WALG_COMPRESSION_METHOD": "zstd", "WALG_ZSTD_LEVEL": "Fastest"}, "zstd:1"),
        ({"WALG_COMPRESSION_METHOD": "zstd", "WALG_ZSTD_LEVEL": "best"}, "zstd:11"),
        ({"WALG_COMPRESSION_METHOD": "brotli"}, "zstd:1"),
        ({"WALG_COMPRESSION_METHOD": "lzma"}, "zstd:1"),
    ],
)
def test_compression(environ: dict[str, str], compression: str) -> None:
    assert load(**PLACE, **environ).compression == compression


def test_what_is_written_instead_is_shown() -> None:
    settings = load(**PLACE, WALG_COMPRESSION_METHOD="brotli", WALG_DELTA_MAX_STEPS="7")
    shown = {each.variable: (each.use, each.text) for each in settings.inherited}
    assert shown["WALG_COMPRESSION_METHOD"] == ("ignored", "pgbackup writes zstd instead, which WAL-G reads")
    assert shown["WALG_DELTA_MAX_STEPS"] == ("understood", "as 0: every base backup is a full one")


def test_numbers() -> None:
    settings = load(
        **PLACE, WALG_UPLOAD_CONCURRENCY="16", WALG_DOWNLOAD_CONCURRENCY="10", WALG_DISK_RATE_LIMIT="41943040",
        WALG_NETWORK_RATE_LIMIT="1000",
    )  # fmt: skip
    assert (settings.upload_concurrency, settings.download_concurrency) == (16, 10)
    assert (settings.backup_rate, settings.upload_rate) == (41943040, 1000)
    cut = load(**PLACE, WALG_UPLOAD_CONCURRENCY="1000", WALG_DOWNLOAD_CONCURRENCY="32")
    assert (cut.upload_concurrency, cut.download_concurrency) == (20, 16)
    text = problem(**PLACE, WALG_UPLOAD_CONCURRENCY="many", WALG_COMPRESSION_METHOD="bzip2")
    assert "WALG_UPLOAD_CONCURRENCY: expected a whole number from 1 (got 'many')" in text
    assert "WALG_COMPRESSION_METHOD: expected lz4" in text


def test_libsodium(tmp_path) -> None:
    file = tmp_path / "key"
    file.write_text(f"  {KEY}\n\n")
    inline = load(**PLACE, WALG_LIBSODIUM_KEY=KEY + "\n", WALG_LIBSODIUM_KEY_PATH=str(file))
    from_file = load(**PLACE, WALG_LIBSODIUM_KEY_PATH=str(file), WALG_LIBSODIUM_KEY_TRANSFORM="base64")
    assert inline.encryption_key is not None
    assert from_file.encryption_key is not None
    assert inline.encryption_key.get_secret_value() == KEY + "\n", "verbatim, as WAL-G takes it"
    assert from_file.encryption_key.get_secret_value() == KEY
    assert from_file.encryption_key_transform == "base64"
    for settings in (inline, from_file):
        assert KEY not in repr(settings) + str(settings.inherited) + str(effective(settings))
        assert any(KEY in secret for secret in settings.secret_values())
    assert "WALG_LIBSODIUM_KEY_PATH: cannot be read" in problem(**PLACE, WALG_LIBSODIUM_KEY_PATH="/absent/key")
    file.write_text(" \n")
    assert "is empty" in problem(**PLACE, WALG_LIBSODIUM_KEY_PATH=str(file))


def test_a_key_of_theirs_that_cannot_be_used_is_named() -> None:
    def check(text: str, transform: str) -> None:
        raise ValueError("too short")

    with pytest.raises(ConfigError, match=r"cannot be used \(from WALG_LIBSODIUM_KEY\): too short"):
        load_settings(environ={**PLACE, "WALG_LIBSODIUM_KEY": "x"}, check_key=check)


@pytest.mark.parametrize("name", [*CLIENT_SIDE, *AT_STORE, "WALG_LIBSODIUM_KEY", "WALG_LIBSODIUM_KEY_PATH"])
def test_encryption_that_cannot_be_honoured_stops_us(name: str) -> None:
    for value in ("", "hunter2") if not name.startswith("WALG_LIBSODIUM") else ("",):
        text = problem(**PLACE, **{name: value})
        assert text.startswith(f"{name}: ")
        assert "hunter2" not in text
    # Wherever the archive lies, and beside a key of libsodium: WAL-G would take the other one.
    if name in CLIENT_SIDE:
        assert name in problem(PGBACKUP_REPOSITORY="file:///x", **{name: "hunter2"})
        assert name in problem(**PLACE, WALG_LIBSODIUM_KEY=KEY, **{name: "hunter2"})
        ours = load(**PLACE, PGBACKUP_ENCRYPTION_KEY=KEY, **{name: "hunter2"})
        assert ours.encryption_key is not None


@pytest.mark.parametrize("engine", ["wal-e", "wal-g"])
@pytest.mark.parametrize("name", [*CLIENT_SIDE, *AT_STORE])
def test_an_empty_key_stops_the_tools_too(engine: str, name: str) -> None:
    """WAL-G takes an empty variable for one that is not there, and would store everything unencrypted."""
    assert problem(**PLACE, PGBACKUP_ENGINE=engine, **{name: ""}).startswith(f"{name}: ")


def test_what_makes_wal_g_encrypt_nothing_by_itself_is_no_key() -> None:
    given = {**PLACE, "PGBACKUP_ENGINE": "wal-g", "WALG_ENVELOPE_PGP_YC_CSE_KMS_KEY_ID": "hunter2"}
    assert "wal-g takes what it says for no key, and would encrypt nothing" in problem(**given)
    assert uses(load(**given, WALG_ENVELOPE_PGP_KEY="hunter2"))["WALG_ENVELOPE_PGP_KEY"] == "understood"


def test_switched_off_is_not_asked_for() -> None:
    assert load(**PLACE, WALG_S3_SSE="false").repository


@pytest.mark.parametrize(
    ("environ", "connection"),
    [
        ({}, StoreConnection()),
        ({"AWS_ENDPOINT": "https://minio:9000/"}, StoreConnection("https://minio:9000", "auto")),
        ({"AWS_ENDPOINT": "minio:9000"}, StoreConnection("https://minio:9000", "auto")),
        (
            {"AWS_ENDPOINT": "http://minio:9000", "AWS_S3_FORCE_PATH_STYLE": "true"},
            StoreConnection("http://minio:9000", "path"),
        ),
        ({"AWS_S3_FORCE_PATH_STYLE": "false"}, StoreConnection()),
        ({"WALE_S3_ENDPOINT": "http+path://minio:9000"}, StoreConnection("http://minio:9000", "path")),
        (
            {"WALE_S3_ENDPOINT": "https+subdomain://s3.example.org"},
            StoreConnection("https://s3.example.org", "virtual"),
        ),
        ({"WALE_S3_ENDPOINT": "https+virtualhost://[::1]:443"}, StoreConnection("https://[::1]:443", "virtual")),
        ({"WALG_S3_CA_CERT_FILE": "/ca.pem"}, StoreConnection(ca_file="/ca.pem")),
        ({"WALG_S3_CA_CERT_FILE": "/ca.pem", "AWS_CA_BUNDLE": "/other.pem"}, StoreConnection()),
    ],
)
def test_how_s3_is_reached(environ: dict[str, str], connection: StoreConnection) -> None:
    assert load(**PLACE, **environ).store_connection == connection


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"WALE_S3_ENDPOINT": "https://minio:9000"}, "expected http[s]+{path|virtualhost|subdomain}"),
        ({"WALE_S3_ENDPOINT": "https+path://user:hunter2@minio"}, "credentials do not go into the endpoint"),
        ({"AWS_ENDPOINT": "https://key:hunter2@minio"}, "credentials do not go into the endpoint"),
        ({"AWS_ENDPOINT": "ftp://minio"}, "expected http://host:port"),
        ({"AWS_ENDPOINT": "http://minio:99999"}, "expected http://host:port"),
        ({"AWS_S3_FORCE_PATH_STYLE": "perhaps"}, "expected yes or no"),
        ({"AWS_ENDPOINT": "http://a", "WALE_S3_ENDPOINT": "http+path://b"}, "name different stores"),
    ],
)
def test_an_endpoint_that_is_none(environ: dict[str, str], said: str) -> None:
    text = problem(**PLACE, **environ)
    assert said in text
    assert next(iter(environ)) in text
    assert "hunter2" not in text


def test_the_rest_is_ignored_and_shown_with_the_reason() -> None:
    settings = load(**PLACE, WALG_PG_WAL_SIZE="64", WALG_S3_RETENTION_PERIOD="86400", WALG_NEW="x", WALE_RETRIES="")
    shown = {each.variable: each for each in settings.inherited}
    assert (shown["WALG_PG_WAL_SIZE"].use, shown["WALG_PG_WAL_SIZE"].loses) == ("ignored", False)
    assert "from the server" in shown["WALG_PG_WAL_SIZE"].text
    assert (shown["WALG_S3_RETENTION_PERIOD"].use, shown["WALG_S3_RETENTION_PERIOD"].loses) == ("ignored", True)
    assert shown["WALG_NEW"].use == "ignored"
    assert "WALE_RETRIES" not in shown


@pytest.mark.parametrize("ending", ["json", "yaml", "props"])
def test_a_configuration_file_that_wal_g_as_the_engine_would_read(tmp_path, ending: str) -> None:
    """Whatever names the repository: it may hold another key, or another place that WAL-G prefers."""
    (tmp_path / f".walg.{ending}").write_text("")
    for place in (PLACE, {"PGBACKUP_REPOSITORY": "file:///x"}):
        text = problem(**place, HOME=str(tmp_path), PGBACKUP_ENGINE="wal-g")
        assert f".walg.{ending}: wal-g would read it, and pgbackup does not" in text
        assert "to ignore it" not in text
    assert load(PGBACKUP_REPOSITORY="file:///x", HOME=str(tmp_path), PGBACKUP_ENGINE="wal-e")


def test_a_configuration_file_of_wal_g_given_as_ours(tmp_path) -> None:
    for name, text in (("x.json", '{"WALG_S3_PREFIX": "s3://b/x"}'), ("x.yaml", "WALG_S3_PREFIX: s3://b/x\n"),
                       ("x.toml", 'WALG_S3_PREFIX = "s3://b/x"\n')):  # fmt: skip
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match="a configuration file of WAL-G is not read, set what it says") as caught:
            load_settings(environ={"PGBACKUP_REPOSITORY": "file:///x"}, toml=tmp_path / name)
        assert "s3://b/x" not in str(caught.value)
