"""What Postgres is told to run, and where tablespaces go."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pgbackup.core.backup import Tablespace
from pgbackup.engines.restore.commands import carried_environment, fetch_command, on_demand_command, secrets_needed
from pgbackup.engines.restore.place import map_tablespaces
from pgbackup.errors import RestoreError


def test_the_command_names_no_secret():
    environ = {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "very secret",
        "PGBACKUP_ENCRYPTION_KEY": "even more",
        "AWS_ENDPOINT_URL": "https://s3.example",
        "PGBACKUP_ENCRYPTION_KEY_FILE": "/run/secrets/key file",
        "HOME": "/root",
    }
    command = fetch_command("s3://bucket/pre fix", environ)
    words = shlex.split(command)
    assert words[0] == "env"
    assert "AWS_ENDPOINT_URL=https://s3.example" in words
    assert "PGBACKUP_REPOSITORY=s3://bucket/pre fix" in words
    assert "PGBACKUP_ENCRYPTION_KEY_FILE=/run/secrets/key file" in words
    assert "secret" not in command.replace("/run/secrets", "")
    assert "even more" not in command
    assert Path(words[words.index("-m") - 2]).is_absolute()
    assert secrets_needed(environ) == ["PGBACKUP_ENCRYPTION_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


def test_what_is_accepted_is_accepted_by_the_server_too():
    """Given by a flag or by a variable: a restore that reads what is not encrypted needs such WAL as well."""
    environ = carried_environment({}, config=None, transform="none", accepted=["accept_unencrypted", "accept_gnupg"])
    words = shlex.split(fetch_command("s3://bucket/prefix", environ))
    assert {"PGBACKUP_ACCEPT_UNENCRYPTED=yes", "PGBACKUP_ACCEPT_GNUPG=yes"} <= set(words)
    plain = carried_environment({}, config=None, transform="none")
    assert "ACCEPT" not in fetch_command("s3://bucket/prefix", plain)


def test_percent_signs_are_doubled_for_postgres():
    command = on_demand_command("file:///a%20b", {})
    assert "file:///a%%20b" in command
    assert command.endswith("wal-fetch --tail %f %p")


SPACES = (Tablespace(16384, "/mnt/one/"), Tablespace(16385, "/mnt/two"))


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({}, {16384: "/mnt/one", 16385: "/mnt/two"}),
        ({"/mnt/one": "/new"}, {16384: "/new", 16385: "/mnt/two"}),
        ({"/mnt/two/": "/new/x/"}, {16384: "/mnt/one", 16385: "/new/x"}),
        ({"16384": "/a", "/mnt/two": "/b"}, {16384: "/a", 16385: "/b"}),
    ],
)
def test_tablespaces_by_location_or_oid(mapping, expected):
    assert map_tablespaces(SPACES, mapping) == {oid: Path(path) for oid, path in expected.items()}


@pytest.mark.parametrize("mapping", [{"/mnt/three": "/x"}, {"16384": "relative"}, {"9": "/x"}])
def test_mappings_that_cannot_be(mapping):
    with pytest.raises(RestoreError):
        map_tablespaces(SPACES, mapping)
