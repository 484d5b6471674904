"""Settings: which layer wins, what is refused, and that every problem is named at once without a secret."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from pgbackup.config.settings import SECRETS, Settings, load_settings
from pgbackup.config.sources import config_file
from pgbackup.config.table import HIDDEN, effective, settings_table
from pgbackup.errors import ConfigError

MINIMAL = {"PGBACKUP_REPOSITORY": "s3://bucket/prefix"}


def problems(environ, **more):
    with pytest.raises(ConfigError) as caught:
        load_settings(environ=environ, **more)
    return str(caught.value)


def test_defaults():
    settings = load_settings(environ=MINIMAL)
    assert settings.repository == "s3://bucket/prefix"
    assert settings.wal_flush_interval == timedelta(seconds=10)
    assert settings.part_size == 256 << 20
    assert (settings.compression, settings.slot, settings.timezone) == ("zstd:1", "pgbackup", "UTC")
    assert (settings.dsn, settings.encryption_key, settings.upload_rate) == (None, None, None)
    assert settings.adopt is False
    assert settings.host


def test_flags_win_over_the_environment_and_that_over_toml(tmp_path):
    toml = tmp_path / "pgbackup.toml"
    toml.write_text('repository = "file:///toml"\nslot = "toml"\nhost = "toml"\nupload_concurrency = 7\nadopt = true\n')
    environ = {"PGBACKUP_SLOT": "environment", "PGBACKUP_HOST": "environment"}
    settings = load_settings(environ=environ, toml=toml, overrides={"host": "flag"})
    assert (settings.repository, settings.slot, settings.host) == ("file:///toml", "environment", "flag")
    assert (settings.upload_concurrency, settings.adopt) == (7, True)
    assert [settings.origin(name) for name in ("repository", "slot", "host", "schedule")] == [
        str(toml), "PGBACKUP_SLOT", "--host", "default",
    ]  # fmt: skip


def test_the_process_environment_is_not_read_behind_our_back(monkeypatch):
    monkeypatch.setenv("PGBACKUP_SLOT", "stray")
    monkeypatch.setenv("SLOT", "stray")
    assert load_settings(environ=MINIMAL).slot == "pgbackup"
    assert Settings(repository="file:///x").slot == "pgbackup"


def test_settings_are_frozen():
    settings = load_settings(environ=MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        settings.slot = "other"


def test_every_problem_is_named_at_once(tmp_path):
    toml = tmp_path / "x.toml"
    toml.write_text('part_size = "much"\nslott = "x"\n[web]\nport = 1\n')
    text = problems(
        {
            "PGBACKUP_REPOSITRY": "s3://bucket",
            "PGBACKUP_SCHEDULE": "yearly",
            "PGBACKUP_TIMEZONE": "Mars/Olympus",
            "PGBACKUP_COMPRESSION": "zstd:99",
            "PGBACKUP_ENCRYPTION_KEY_FILE": str(tmp_path / "absent"),
            "PGBACKUP_WAL_FLUSH_INTERVAL": "10",
            "PGBACKUP_UPLOAD_CONCURRENCY": "0",
            "PGBACKUP_ADOPT": "maybe",
        },
        toml=toml,
        overrides={"slot": "Has-Capitals"},
    )
    assert "13 problems" in text
    assert "PGBACKUP_REPOSITRY: is not a setting; did you mean PGBACKUP_REPOSITORY?" in text
    assert "PGBACKUP_REPOSITORY: is missing: s3://bucket/prefix or file:///path" in text
    assert f"PGBACKUP_PART_SIZE: not a size such as 256MiB or 1GB (got 'much' in {toml})" in text
    assert f"{toml}: slott: is not a setting; did you mean slot?" in text
    assert f"{toml}: web must be a text" in text
    assert (
        "PGBACKUP_SLOT: a slot's name has 1 to 63 lower-case letters, digits and underscores (got 'Has-Capitals')"
        in text
    )
    assert "PGBACKUP_ENCRYPTION_KEY_FILE: cannot be read: No such file or directory (got '" in text
    assert "PGBACKUP_ADOPT: expected yes or no (got 'maybe')" in text
    assert "PGBACKUP_UPLOAD_CONCURRENCY: expected a whole number from 1 to 20 (got '0')" in text
    for name in ("SCHEDULE", "TIMEZONE", "COMPRESSION", "WAL_FLUSH_INTERVAL"):
        assert f"PGBACKUP_{name}: " in text


def test_one_problem_is_one_line():
    assert problems({}) == "PGBACKUP_REPOSITORY: is missing: s3://bucket/prefix or file:///path"
    assert load_settings(environ={}, need_repository=False).repository == ""


def test_variables_that_are_no_settings_but_known():
    extra = {
        "PGBACKUP_CONFIG": "x", "PGBACKUP_PG_BINDIR": "/x", "PGBACKUP_TEST_ANYTHING": "1",
        "PGBACKUP_SERVICE_HOST": "10.0.0.1", "PGBACKUP_SERVICE_PORT_HTTP": "80", "PGBACKUP_PORT": "tcp://10.0.0.1:80",
        "PGBACKUP_PORT_80_TCP_ADDR": "10.0.0.1", "PATH": "/bin",
    }  # fmt: skip
    assert load_settings(environ={**MINIMAL, **extra}).repository


def test_an_empty_variable_counts_as_not_given_unless_it_is_a_secret():
    assert load_settings(environ={**MINIMAL, "PGBACKUP_SLOT": ""}).slot == "pgbackup"
    assert "PGBACKUP_ENCRYPTION_KEY: is empty" in problems({**MINIMAL, "PGBACKUP_ENCRYPTION_KEY": ""})


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_every_secret_can_come_from_a_file(tmp_path, name):
    file = tmp_path / "secret"
    file.write_text("password=hunter2\n")
    variable = f"PGBACKUP_{name.upper()}"
    settings = load_settings(environ={**MINIMAL, f"{variable}_FILE": str(file)})
    assert getattr(settings, name).get_secret_value() == "password=hunter2"
    assert settings.origin(name) == str(file)
    assert "hunter2" in settings.secret_values() or name == "encryption_key"
    assert "hunter2" not in repr(settings)
    toml = tmp_path / "x.toml"
    toml.write_text(f'{name}_file = "{file}"\n')
    assert getattr(load_settings(environ=MINIMAL, toml=toml), name).get_secret_value() == "password=hunter2"
    text = problems({**MINIMAL, f"{variable}_FILE": str(file), variable: "password=other"})
    assert f"{variable}: is given twice" in text
    assert "other" not in text


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff\xfe", "UTF-8"), (b"x" * 70000, "too large")],
)
def test_files_that_hold_no_secret(tmp_path, content, problem):
    file = tmp_path / "secret"
    file.write_bytes(content)
    text = problems({**MINIMAL, "PGBACKUP_ENCRYPTION_KEY_FILE": str(file)})
    assert text.startswith("PGBACKUP_ENCRYPTION_KEY_FILE: ")
    assert problem in text


def test_a_secret_never_stands_in_a_problem():
    text = problems({"PGBACKUP_DSN": "hunter2", "PGBACKUP_REPOSITORY": "s3://key:hunter2@bucket"})
    assert "PGBACKUP_DSN: expected" in text
    assert "PGBACKUP_REPOSITORY: credentials and endpoint do not go into the URL" in text
    assert "hunter2" not in text


def test_a_key_that_cannot_be_used_stops_everything():
    def check(text, transform):
        assert (text, transform) == ("hunter2", "hex")
        raise ValueError("not 64 hexadecimal digits")

    environ = {**MINIMAL, "PGBACKUP_ENCRYPTION_KEY": "hunter2", "PGBACKUP_ENCRYPTION_KEY_TRANSFORM": "hex"}
    text = problems(environ, check_key=check)
    assert text == "PGBACKUP_ENCRYPTION_KEY: cannot be used: not 64 hexadecimal digits"


def test_a_key_that_cannot_be_used_is_named_with_everything_else(tmp_path):
    def check(text, transform):
        raise ValueError(f"no {transform} key")

    environ = {"PGBACKUP_ENCRYPTION_KEY": "hunter2", "PGBACKUP_COMPRESSION": "zstd:77"}
    text = problems(environ, check_key=check)
    assert "PGBACKUP_REPOSITORY: is missing" in text
    assert "PGBACKUP_COMPRESSION: expected" in text
    assert "PGBACKUP_ENCRYPTION_KEY: cannot be used: no none key" in text
    assert "hunter2" not in text
    text = problems({**environ, "PGBACKUP_ENCRYPTION_KEY_TRANSFORM": "HEX "}, check_key=check)
    assert text.count("PGBACKUP_ENCRYPTION_KEY") == 1
    text = problems({**environ, "PGBACKUP_ENCRYPTION_KEY_FILE": str(tmp_path / "absent")}, check_key=check)
    assert "is given twice" in text


def test_the_time_zone_comes_from_tz_when_that_names_one():
    assert load_settings(environ={**MINIMAL, "TZ": "Europe/Berlin"}).tz.key == "Europe/Berlin"
    assert load_settings(environ={**MINIMAL, "TZ": ":/etc/localtime"}).timezone == "UTC"
    assert load_settings(environ={**MINIMAL, "TZ": "Asia/Tokyo", "PGBACKUP_TIMEZONE": "UTC"}).timezone == "UTC"


def test_a_bad_toml_file_is_a_problem(tmp_path):
    file = tmp_path / "x.toml"
    file.write_text("slot = ")
    assert "not TOML" in problems(MINIMAL, toml=file)
    assert "cannot be read: No such file" in problems(MINIMAL, toml=tmp_path / "absent")


def test_which_toml_file_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_file({}, None) in (None, config_file({}, None))
    (tmp_path / "pgbackup.toml").touch()
    assert str(config_file({}, None)) == "pgbackup.toml"
    assert str(config_file({"PGBACKUP_CONFIG": "/named"}, None)) == "/named"
    assert str(config_file({"PGBACKUP_CONFIG": "/named"}, tmp_path)) == str(tmp_path)


def test_effective_settings_show_no_secret():
    settings = load_settings(
        environ={**MINIMAL, "PGBACKUP_DSN": "host=x password=hunter2", "PGBACKUP_UPLOAD_RATE": "5MB/s"}
    )
    shown = {each.variable: each for each in effective(settings)}
    assert shown["PGBACKUP_DSN"].value == HIDDEN
    assert shown["PGBACKUP_DSN"].origin == "PGBACKUP_DSN"
    assert shown["PGBACKUP_ENCRYPTION_KEY"].value == ""
    assert shown["PGBACKUP_UPLOAD_RATE"].value == "5MB/s"
    assert shown["PGBACKUP_WAL_FLUSH_INTERVAL"].value == "10s"
    assert "hunter2" not in str(shown)


def test_the_table_has_every_setting_with_help():
    lines = settings_table().splitlines()[2:]
    assert len(lines) == len(Settings.model_fields)
    assert all(len(line.split(" | ")) == 3 and line.endswith(". |") for line in lines)


@pytest.mark.parametrize("amount", ["9" * 20, "9" * 400, "9" * 5000], ids=len)
def test_numbers_beyond_all_bounds_are_problems_like_others(amount):
    """Python's int() raises for thousands of digits, and its floats become infinite."""
    units = ("", "s", "d", "MB", "MB/s", "%", " hours", ":00")
    for name in Settings.model_fields:
        for text in (*(amount + unit for unit in units), f"every {amount} hours", f"daily at {amount}:00"):
            with suppress(ConfigError):
                load_settings(environ=MINIMAL | {f"PGBACKUP_{name.upper()}": text})
    for name in ("WALG_UPLOAD_CONCURRENCY", "WALG_NETWORK_RATE_LIMIT", "WALG_DISK_RATE_LIMIT", "WALG_ZSTD_LEVEL"):
        with suppress(ConfigError):
            load_settings(environ=MINIMAL | {name: amount})


@pytest.mark.parametrize("value", ["9" * 5000, "0x" + "f" * 5000, "1e400", "[" * 5000], ids=lambda text: text[:3])
def test_toml_that_python_cannot_take_is_a_problem(value, tmp_path):
    toml = tmp_path / "x.toml"
    toml.write_text(f"upload_concurrency = {value}")
    with pytest.raises(ConfigError):
        load_settings(environ=MINIMAL, toml=toml)


@pytest.mark.parametrize(
    "given",
    [
        "http://a/x?to=1,2 tgram://token/chat",
        "http://a/x?to=1,2,tgram://token/chat",
        "http://a/x?to=1,2 , \n tgram://token/chat,\n",
    ],
)
def test_webhook_addresses_may_be_separated_as_people_separate_things(given):
    """Taken for one address, all would go to the first host, with a path that it may well accept."""
    settings = load_settings(environ={**MINIMAL, "PGBACKUP_WEBHOOK_URLS": given})
    assert settings.webhook_addresses == ["http://a/x?to=1,2", "tgram://token/chat"]
