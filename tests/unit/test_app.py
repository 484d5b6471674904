"""The composition root: nothing before it is asked for, and placeholders only from a server that was asked."""

from __future__ import annotations

from contextlib import closing

import pytest

from pgbackup.app import App
from pgbackup.config.settings import load_settings
from pgbackup.core.status import Verdict
from pgbackup.engines.presence.lease import Lease
from pgbackup.errors import CheckFailed, ConfigError, StorageError
from pgbackup.storage.file import FileStore


def app(**environ: str) -> App:
    def load(*, need_repository: bool = True):
        return load_settings(environ=environ, need_repository=need_repository)

    return App(load)


def test_settings_are_read_when_they_are_asked_for():
    broken = app(PGBACKUP_SLOT="Bad Name")
    with pytest.raises(ConfigError, match="PGBACKUP_REPOSITORY") as caught:
        _ = broken.settings
    assert "PGBACKUP_SLOT" in str(caught.value)


def test_commands_for_the_server_need_no_repository():
    assert app(PGBACKUP_DSN="host=db").conninfo == "host=db"
    assert app().conninfo == ""
    with pytest.raises(ConfigError, match="is missing"):
        app().repository_url()


def test_a_plain_url_asks_nobody():
    assert app(PGBACKUP_REPOSITORY="s3://bucket/x/").repository_url() == "s3://bucket/x"


def test_placeholders():
    template = app(
        PGBACKUP_REPOSITORY="s3://bucket/{pg_major}/{system_identifier}", PGBACKUP_DSN="host=127.0.0.1 port=1"
    )
    with pytest.raises(ConfigError, match="only a server can fill in"):
        template.repository_url(ask_server=False)
    with pytest.raises(ConfigError, match="the server did not answer"):
        template.repository_url()
    template.know_cluster(system_identifier=42, pg_major=16)
    assert template.repository_url(ask_server=False) == "s3://bucket/16/42"


def test_a_status_that_cannot_find_the_repository_is_a_verdict():
    """The server is down, and only it can say where the repository is: not a mistake in the settings."""
    status = app(PGBACKUP_REPOSITORY="file:///x/{system_identifier}", PGBACKUP_DSN="host=127.0.0.1 port=1").status()
    assert status.verdict is not Verdict.OK
    said = " ".join(opened.finding.summary for opened in status.findings)
    assert "the server does not answer" in said
    assert "placeholders" in said


def test_stores(tmp_path):
    made = app(PGBACKUP_REPOSITORY=f"file://{tmp_path}/x", PGBACKUP_UPLOAD_RATE="50MB/s")
    made.open_store().put("key", b"x")
    assert made.open_readonly_store().get("key") == b"x"
    with pytest.raises(StorageError, match="for reading only"):
        made.open_readonly_store().put("key", b"y")


def test_the_codec_is_as_configured():
    key = "a key of thirty-two bytes or more"
    codec = app(PGBACKUP_REPOSITORY="file:///x", PGBACKUP_COMPRESSION="lz4", PGBACKUP_ENCRYPTION_KEY=key).codec()
    assert (codec.extension, codec.encrypted) == ("lz4", True)
    assert not app(PGBACKUP_REPOSITORY="file:///x").codec().encrypted
    with pytest.raises(ConfigError, match="PGBACKUP_ENCRYPTION_KEY: cannot be used") as caught:
        app(PGBACKUP_REPOSITORY="file:///x", PGBACKUP_ENCRYPTION_KEY="hunter2").codec()
    assert "hunter2" not in str(caught.value)


def test_expiry_beside_the_run_of_another_host_names_it(tmp_path):
    """A clone with a copied environment must not expire for the original; whoever means it is told how to say so."""
    place = f"file://{tmp_path}"
    with closing(FileStore(tmp_path)) as store:
        assert Lease(store, writer="db-1:1:a", host="db-1").acquire(42, 1)
    with app(PGBACKUP_REPOSITORY=place, PGBACKUP_HOST="clone").open_expiry(apply=True, accept_missing=False) as request:
        with pytest.raises(CheckFailed, match="another host, db-1,") as caught:
            request.may_run()
        assert "PGBACKUP_HOST=db-1" in caught.value.hint
    with app(PGBACKUP_REPOSITORY=place, PGBACKUP_HOST="db-1").open_expiry(apply=True, accept_missing=False) as request:
        assert request.may_run()
