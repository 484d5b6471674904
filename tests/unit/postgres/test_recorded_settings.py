"""What of a server's settings is recorded beside its backups: never a secret."""

from __future__ import annotations

import pytest

from pgbackup.postgres.recorded_settings import hide_secrets, select_settings


def test_secrets_and_recovery_targets_are_left_out() -> None:
    kept = select_settings(
        [
            ("max_connections", "200"),
            ("shared_preload_libraries", "pg_stat_statements"),
            ("primary_conninfo", "host=a password=b"),
            ("ssl_passphrase_command", "cat /secret"),
            ("recovery_target_time", "2026-01-01"),
            ("myapp.jwt_secret", "abc"),
            ("ldap.bind_password", "abc"),
            ("config_file", "/etc/postgresql.conf"),
            ("unseen", None),
        ]
    )
    assert kept == {"max_connections": "200", "shared_preload_libraries": "pg_stat_statements"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("cp %p /archive/%f", "cp %p /archive/%f"),
        ("curl -T %p https://me:pa55@host/wal/%f", "curl -T %p https://***@host/wal/%f"),
        ("AWS_SECRET_ACCESS_KEY=abc/+= wal-g wal-push %p", "AWS_SECRET_ACCESS_KEY=*** wal-g wal-push %p"),
        ("tool --password='a b' %p", "tool --password=*** %p"),
        ("PGPASSWORD=x psql", "PGPASSWORD=*** psql"),
    ],
)
def test_secrets_inside_commands_are_hidden(value: str, expected: str) -> None:
    assert hide_secrets(value) == expected
