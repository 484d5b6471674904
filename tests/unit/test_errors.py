"""What an error says: message, detail and hint as sentences, whatever full stops came with them."""

from __future__ import annotations

import pytest

from pgbackup.errors import CorruptObject, PgbackupError, StorageError


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        ("Access Denied.", "the store refused: Access Denied"),
        ("Access Denied.\n", "the store refused: Access Denied"),
        ("Access Denied", "the store refused: Access Denied"),
        ("FATAL: no such role.\nHINT: make it.", "the store refused: FATAL: no such role.\nHINT: make it"),
        ("and so on...", "the store refused: and so on..."),
        (".", "the store refused"),
        ("", "the store refused"),
    ],
)
def test_what_others_said_loses_its_full_stop(detail: str, text: str) -> None:
    assert str(StorageError("the store refused", detail=detail)) == text


def test_a_hint_follows_behind_one_full_stop() -> None:
    error = StorageError("the store refused", detail="Access Denied.", hint="Give these credentials s3:GetObject.")
    assert error.with_hint() == "the store refused: Access Denied. Give these credentials s3:GetObject."
    assert StorageError("the store refused.").with_hint() == "the store refused"
    assert StorageError("it is gone.", hint="Look.").with_hint() == "it is gone. Look."


def test_an_error_inside_another_ends_once() -> None:
    inner = CorruptObject("basebackups_005/x", "its checksum is another.")
    outer = PgbackupError(f"nothing is removed: {inner}", hint="Run `pgbackup verify`.")
    assert outer.with_hint() == (
        "nothing is removed: object basebackups_005/x is damaged: its checksum is another. Run `pgbackup verify`."
    )
