"""The command and the messages of BASE_BACKUP, and what the server's warnings about pages say."""

from __future__ import annotations

import struct

import pytest

from pgbackup.postgres.base_backup_wire import (
    UNNAMED,
    ArchiveBegins,
    BaseBackupOptions,
    ManifestBegins,
    PageWarnings,
    format_command,
    parse_copy_message,
)


def test_the_keyword_form_of_14() -> None:
    assert format_command(BaseBackupOptions("it's mine", max_rate_bytes=50_000_000), 14) == (
        "BASE_BACKUP LABEL 'it''s mine' PROGRESS FAST NOWAIT MAX_RATE 48828 TABLESPACE_MAP "
        "MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"
    )


def test_the_parenthesised_form_since_15() -> None:
    assert format_command(BaseBackupOptions("nightly"), 15) == (
        "BASE_BACKUP (LABEL 'nightly', PROGRESS, CHECKPOINT 'fast', WAIT false, TABLESPACE_MAP, MANIFEST 'yes', "
        "MANIFEST_CHECKSUMS 'CRC32C', VERIFY_CHECKSUMS true)"
    )


@pytest.mark.parametrize(
    ("rate", "limit"),
    [(1, "MAX_RATE 32)"), (32 * 1024, "MAX_RATE 32)"), (1 << 30, "MAX_RATE 1048576)"), ((1 << 30) + 1, "true)")],
)
def test_a_rate_is_kept_within_what_the_server_takes(rate: int, limit: str) -> None:
    assert format_command(BaseBackupOptions("x", rate), 18).endswith(limit)


def test_a_label_is_one_line_of_limited_length() -> None:
    command = format_command(BaseBackupOptions("a\nb\0c" + "x" * 2000), 18)
    assert "LABEL 'a b cx" in command
    assert len(command) < 500


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"nbase.tar\0\0", ArchiveBegins(None)),
        (b"n16385.tar\0/mnt/t s\0", ArchiveBegins(16385)),
        (b"m", ManifestBegins()),
        (b"p" + struct.pack(">Q", 5 << 30), 5 << 30),
    ],
)
def test_messages(message: bytes, expected: object) -> None:
    assert parse_copy_message(memoryview(message)) == expected


def test_data_is_a_view_without_the_type_byte() -> None:
    message = parse_copy_message(memoryview(b"dcontent"))
    assert isinstance(message, memoryview)
    assert bytes(message) == b"content"
    assert parse_copy_message(memoryview(b"d")) == memoryview(b"")


@pytest.mark.parametrize("message", [b"", b"x", b"p\0\0", b"nother.tar\0\0", b"n\0", b"n12a.tar\0"])
def test_unknown_messages_are_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match="unknown"):
        parse_copy_message(memoryview(message))


def test_warnings_name_file_and_block() -> None:
    warnings = PageWarnings()
    warnings.add('checksum verification failed in file "./base/5/16384", block 7: calculated 5EC3 but expected 9A2B')
    warnings.add('checksum verification failed in file "base/5/16384", block 12: calculated 1 but expected 2')
    warnings.add('further checksum verification failures in file "base/5/16384" will not be reported')
    warnings.add('file "base/5/16384" has a total of 6 checksum verification failures')
    warnings.add(
        'could not verify checksum in file "base/5/99", block 3: read buffer size 100 and page size 8192 differ'
    )
    warnings.add("6 total checksum verification failures")
    assert warnings.damaged() == {"base/5/16384": [7, 12]}


def test_a_server_that_speaks_another_language() -> None:
    warnings = PageWarnings()
    warnings.add("Prüfsummenüberprüfung fehlgeschlagen in Datei »base/5/16384«, block 7: berechnet 1, erwartet 2")
    assert warnings.damaged() == {"base/5/16384": [7]}
    assert PageWarnings().damaged() == {UNNAMED: []}
