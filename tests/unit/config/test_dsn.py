"""Connection strings: the shape that libpq reads, and every password in one."""

from __future__ import annotations

import pytest

from pgbackup.config import dsn


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:p@h1,h2:5433/db?target_session_attrs=primary", "postgres:///db", "host=x user = y",
        r"host=x password='it\'s # secret'", "", "service=main", "host=a,b port=1,2", "password=''",
    ],
)  # fmt: skip
def test_shapes_that_libpq_reads(text):
    dsn.check_shape(text)


@pytest.mark.parametrize("text", ["mysql://x", "localhost", "host=x oops", "host='x", "://hunter2"])
def test_other_shapes_are_refused_without_being_quoted(text):
    with pytest.raises(ValueError, match="libpq") as caught:
        dsn.check_shape(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("host=x", set()),
        ("host=x password=hunter2 user=y", {"hunter2"}),
        (r"password='it\'s' sslpassword=other", {r"it\'s", "it's", "other"}),
        ("postgresql://u:p%40ss@h/db", {"p%40ss", "p@ss"}),
        ("postgresql://u@h/db?password=one%20two&x=1", {"one%20two", "one two"}),
        ("postgresql://u:with@sign@h/db", {"with@sign"}),
        ("postgres://h/db", set()),
    ],
)
def test_passwords(text, found):
    assert set(dsn.passwords(text)) == found
