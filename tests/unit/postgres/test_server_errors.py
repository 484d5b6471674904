"""What a refusal of the server means."""

from __future__ import annotations

import pytest

from pgbackup.postgres.server_errors import from_connect, is_for_loopback_only

REFUSED = 'connection failed: FATAL:  no pg_hba.conf entry for {}host "{}", user "pgbackup", no encryption'


@pytest.mark.parametrize(
    ("what", "address", "expected"),
    [
        ("replication connection from ", "172.18.0.3", True),
        ("replication connection from ", "fd00::3", True),
        ("replication connection from ", "127.0.0.1", False),
        ("replication connection from ", "::1", False),
        ("", "172.18.0.3", False),
    ],
)
def test_rules_that_let_replication_in_over_loopback_only_are_recognised(
    what: str, address: str, expected: bool
) -> None:
    """As the stock image has them: `host all all all scram-sha-256`, and replication for 127.0.0.1 and ::1."""
    refusal = from_connect(REFUSED.format(what, address))
    assert is_for_loopback_only(refusal, address) == expected


def test_another_failure_says_nothing_about_the_rules() -> None:
    refusal = from_connect('FATAL:  password authentication failed for user "pgbackup"')
    assert not is_for_loopback_only(refusal, "172.18.0.3")


def test_a_host_that_is_not_found_is_that_of_the_environment():
    """psycopg looks at the connection string only, and says None."""
    refusal = from_connect("failed to resolve host None: [Errno -2] Name or service not known")
    assert "the host that PGHOST names" in refusal.detail
    assert "None" not in refusal.detail
