"""Repository URLs: what is one, what is refused, and what the placeholders become."""

from __future__ import annotations

import pytest

from pgbackup.config.repository_url import RepositoryUrl, redact_url


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        (" s3://my.bucket-1/a/b/ ", "s3://my.bucket-1/a/b"),
        ("file:///var/backups", "file:///var/backups"),
        ("file:///var/with%20space/", "file:///var/with%20space"),
        ("s3://bucket/{pg_major}/{system_identifier}", "s3://bucket/{pg_major}/{system_identifier}"),
    ],
)
def test_good_urls(text, kept):
    assert str(RepositoryUrl.parse(text)) == kept


@pytest.mark.parametrize(
    "text",
    [
        "", "bucket/prefix", "/var/backups", "http://bucket/x", "S3://bucket", "s3://", "s3:///prefix", "s3://ab",
        "s3://key:hunter2@bucket/x", "s3://host:9000/bucket", "s3://bucket/a//b", "s3://bucket/../x", "s3://bucket/./x",
        "s3://bucket/x?versioning=1", "s3://bucket/x#y", "s3://bucket/a b", "s3://bucket/\x00", "file://relative/path",
        "file:///", "file:///a/../b", "file:///a/%2e%2e/b", "s3://{pg_major}/x", "s3://bucket/{host}", "s3://bucket/{",
        "s3://bucket/{{pg_major}}", "s3://bucket/{}",
    ],
)  # fmt: skip
def test_bad_urls_are_refused_without_being_quoted(text):
    with pytest.raises(ValueError, match=r"\w") as caught:
        RepositoryUrl.parse(text)
    assert "hunter2" not in str(caught.value)


def test_placeholders_are_filled_in():
    url = RepositoryUrl.parse("s3://bucket/pg{pg_major}/{system_identifier}")
    assert url.is_template
    assert url.resolve(system_identifier=7421, pg_major=16) == "s3://bucket/pg16/7421"
    assert not RepositoryUrl.parse("s3://bucket").is_template


def test_a_password_in_a_url_is_not_shown():
    assert redact_url("s3://key:hunter2@bucket/x") == "s3://***@bucket/x"
