"""Objects that the real gpg program encrypted: read by what they are, never believed before their code was right."""

from __future__ import annotations

import io
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pgbackup.errors import CorruptObject, ToolError
from pgbackup.printable import printable
from pgbackup.repository import openpgp
from pgbackup.repository.codec import Codec, Compression
from tests.fix_gpg import CURVE, RSA, Keyring, new_keyring

KEY = bytes(range(32))
PASSPHRASE = "it is only a test"
ZSTD = Codec(Compression("zstd", 1))
SECRET = Codec(Compression("zstd", 1), KEY)
MIXED = Codec(Compression("zstd", 1), KEY, accept_gnupg=True)
NAME = "wal_005/000000010000000000000001.zst"
CONTENT = os.urandom(3_000_000)
LARGE = ZSTD.encode(CONTENT)
SMALL = ZSTD.encode(b"small")


def children() -> set[int]:
    """Processes of ours that are called gpg, as Linux shows them."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, name, _, parent = path.read_text().split()[:4]
            if name == "(gpg)" and int(parent) == os.getpid():
                found.add(int(pid))
    return found


@pytest.mark.parametrize("recipients", [(RSA,), (CURVE,), (RSA, CURVE)], ids=["rsa", "curve", "both"])
@pytest.mark.parametrize("codec", [ZSTD, MIXED], ids=["without-key", "with-key"])
def test_a_message_is_read_whatever_is_configured(own_keyring: Keyring, recipients: tuple[str, ...], codec) -> None:
    for stored, content in ((LARGE, CONTENT), (SMALL, b"small")):
        message = own_keyring.encrypt(stored, *recipients)
        assert openpgp.is_message(message)
        assert codec.decode(NAME, message) == content
        with codec.open(NAME, io.BytesIO(message)) as stream:
            assert stream.read() == content
    assert not children()


@pytest.mark.parametrize("codec", [ZSTD, MIXED], ids=["without-key", "with-key"])
def test_data_that_is_marked_as_text_is_taken_as_it_is(own_keyring: Keyring, codec: Codec) -> None:
    """WAL-G marks all that it encrypts as text, and gpg drops the carriage returns of text."""
    content = os.urandom(200_000)
    stored = ZSTD.encode(content)
    message = own_keyring.encrypt_as_wal_g(stored, RSA)
    assert b"\r" in stored
    assert own_keyring.gpg("-d", data=message) != stored
    assert codec.decode(NAME, message) == content
    raw = b"\r\n" * 1000 + content + b"\r"
    assert codec.decode(NAME.removesuffix(".zst"), own_keyring.encrypt_as_wal_g(raw, RSA)) == raw
    for bad in (message[:-30], message[:-1] + bytes((message[-1] ^ 1,))):
        with pytest.raises(CorruptObject):
            codec.decode(NAME, bad)


def test_every_object_is_read_by_what_it_is(own_keyring: Keyring) -> None:
    """One prefix: our libsodium; WAL-E's gpg, and what has no encryption, only where that was allowed."""
    for _ in range(300):
        stored = SECRET.encode(b"ours")
        assert not openpgp.is_message(stored)
        assert SECRET.decode(NAME, stored) == b"ours"
    with pytest.raises(CorruptObject, match="not encrypted, but an encryption key is configured") as refused:
        SECRET.decode(NAME, SMALL)
    assert "PGBACKUP_ACCEPT_UNENCRYPTED" in refused.value.hint
    lenient = Codec(Compression("zstd", 1), KEY, accept_unencrypted=True)
    assert lenient.decode(NAME, SMALL) == b"small"
    assert lenient.decode(NAME, SECRET.encode(b"ours")) == b"ours"
    with pytest.raises(CorruptObject, match="encrypted with GnuPG, not with the encryption key") as refused:
        lenient.decode(NAME, own_keyring.encrypt(SMALL, RSA))
    assert "PGBACKUP_ACCEPT_GNUPG" in refused.value.hint
    with pytest.raises(CorruptObject, match="not encrypted"):
        MIXED.decode(NAME, SMALL)
    assert MIXED.with_compression(Compression("lz4")).decode(NAME, own_keyring.encrypt(SMALL, RSA)) == b"small"
    with pytest.raises(CorruptObject, match="GnuPG"):
        MIXED.strict().decode(NAME, own_keyring.encrypt(SMALL, RSA))
    # What nothing proves is refused all the same: another key, or no magic number.
    for name, stored in ((NAME, Codec(Compression("zstd", 1), bytes(32)).encode(b"x")), (NAME[:-4], b"plain text")):
        with pytest.raises(CorruptObject, match="another key"):
            lenient.decode(name, stored)


def test_an_object_of_ours_that_begins_like_openpgp(own_keyring: Keyring) -> None:
    """Its header is random: 3 of 256 begin with the byte of a session key packet."""
    seen = 0
    while seen < 3:
        stored = SECRET.encode(b"ours")
        if openpgp.may_begin(stored):
            seen += 1
            assert SECRET.decode(NAME, stored) == b"ours"
            with pytest.raises(CorruptObject):
                ZSTD.decode(NAME, stored)


def test_damage_is_found_before_the_end(own_keyring: Keyring) -> None:
    for message in (own_keyring.encrypt(LARGE, RSA), own_keyring.encrypt(SMALL, CURVE)):
        size = len(message)
        damaged = [message[:cut] for cut in (size - 1, size - 20, size - 50)] + [message + b"x", message + message]
        for at in (size - 1, size - 25, size - 40):
            flipped = bytearray(message)
            flipped[at] ^= 0x10
            damaged.append(bytes(flipped))
        for number, bad in enumerate(damaged):
            with pytest.raises(CorruptObject):
                assert ZSTD.decode(NAME, bad) == number, "damage that was not found"
    assert not children()


def test_damage_behind_content_that_is_whole(own_keyring: Keyring) -> None:
    """Without compression nothing but the message's own code shows it."""
    message = bytearray(own_keyring.encrypt(CONTENT, RSA))
    message[len(message) // 2] ^= 1
    with pytest.raises(CorruptObject, match="OpenPGP message is damaged"):
        ZSTD.decode(NAME.removesuffix(".zst"), bytes(message))


def test_content_that_is_not_what_the_key_says(own_keyring: Keyring) -> None:
    with pytest.raises(CorruptObject, match=r"its content is not \.lz4|its content is \.zst, not \.lz4"):
        ZSTD.decode("a.lz4", own_keyring.encrypt(SMALL, RSA))


def test_a_message_without_integrity_protection(own_keyring: Keyring) -> None:
    message = own_keyring.gpg("--rfc2440", "--disable-mdc", "-e", "-z", "0", "-r", RSA, data=SMALL)
    if own_keyring.gpg("--version").split()[2] < b"2.1":
        pytest.skip("this gpg still believes such messages")
    try:
        assert ZSTD.decode(NAME, message) == b"small"  # newer versions add the code all the same
    except CorruptObject as exc:
        assert "damaged" in str(exc)  # noqa: PT017


def test_a_key_that_is_not_there(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    message = keyring.encrypt(SMALL, RSA)
    with new_keyring() as empty:
        monkeypatch.setenv("GNUPGHOME", str(empty.folder))
        with pytest.raises(ToolError, match="for a key that gpg does not have") as refused:
            ZSTD.decode(NAME, message)
    assert NAME in str(refused.value)
    assert "gpg --import" in refused.value.hint


def test_a_passphrase_is_an_error_and_never_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    with new_keyring() as locked:
        locked.make_key("locked@example.org", "EDDSA\nKey-Curve: ed25519", "ECDH\nSubkey-Curve: cv25519", PASSPHRASE)
        message = locked.encrypt(SMALL, "locked@example.org")
        monkeypatch.setenv("GNUPGHOME", str(locked.folder))
        locked.gpg("--pinentry-mode", "loopback", "--passphrase", PASSPHRASE, "-d", data=message)
        assert ZSTD.decode(NAME, message) == b"small"  # now the agent knows it
        subprocess.run(["gpgconf", "--kill", "gpg-agent"], check=True)
        with pytest.raises(ToolError, match="passphrase gpg-agent does not know"):
            ZSTD.decode(NAME, message)


def test_without_the_program(own_keyring: Keyring, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    message = own_keyring.encrypt(SMALL, RSA)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="there is no gpg program"):
        ZSTD.decode(NAME, message)


def test_who_stops_reading_leaves_no_program_behind(own_keyring: Keyring) -> None:
    stream = ZSTD.open(NAME, io.BytesIO(own_keyring.encrypt(LARGE, RSA)))
    assert stream.read(10) == CONTENT[:10]
    assert children()
    stream.close()
    assert not children()


def test_a_source_that_fails_leaves_no_program_behind(own_keyring: Keyring) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1_000_000:
                raise OSError("the network is gone")
            return super().read(size)

    with ZSTD.open(NAME, Broken(own_keyring.encrypt(LARGE, RSA))) as stream:
        with pytest.raises(OSError, match="the network is gone"):
            stream.read()
    assert not children()


def test_what_the_program_says_is_passed_on_as_it_is(
    own_keyring: Keyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shows it escapes it: what was dropped here, nobody could see any more."""
    message = own_keyring.encrypt(LARGE, RSA)
    fake = tmp_path / "gpg"
    fake.write_text("#!/bin/sh\nprintf 'gpg: key \\033[2Jof\\342\\200\\256\\n' >&2; exit 2\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(CorruptObject) as caught:
        ZSTD.decode(NAME, message)
    assert printable(caught.value.detail) == r"gpg cannot decrypt it: gpg: key \x1b[2Jof\u202e"


@pytest.mark.parametrize("script", ["exec sleep 99", "cat >/dev/null; yes no 1>&2", "cat >/dev/null", "exit 7"])
def test_a_program_that_misbehaves(
    own_keyring: Keyring, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs, floods, claims success, or ends at once: an error in bounded time, and no process left."""
    message = own_keyring.encrypt(LARGE, RSA)
    fake = tmp_path / "gpg"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("pgbackup.repository.gpg._SILENCE_SECONDS", 0.5)
    begin = time.monotonic()
    with pytest.raises((ToolError, CorruptObject)):
        ZSTD.decode(NAME, message)
    assert time.monotonic() - begin < 20
    assert not children()
