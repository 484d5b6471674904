"""A keyring of the ``gpg`` program with keys of its own, and messages to them as WAL-E and as WAL-G make them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

RSA, CURVE = "rsa@example.org", "curve@example.org"


class Keyring:
    """GNUPGHOME in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        command = [
            "gpg",
            "--batch",
            "--no-tty",
            "--quiet",
            "--trust-model",
            "always",
            "--no-auto-key-locate",
            *arguments,
        ]
        environ = os.environ | {"GNUPGHOME": str(self.folder)}
        done = subprocess.run(command, input=data, capture_output=True, env=environ, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def make_key(self, name: str, algorithm: str, subkey: str, passphrase: str = "") -> None:
        """A key to sign with, and below it one to encrypt to."""
        wanted = f"Key-Type: {algorithm}\nSubkey-Type: {subkey}\nName-Email: {name}\nExpire-Date: 0\n"
        wanted += f"Passphrase: {passphrase}\n" if passphrase else "%no-protection\n"
        self.gpg("--pinentry-mode", "loopback", "--generate-key", data=wanted.encode())

    def encrypt(self, data: bytes, *recipients: str) -> bytes:
        """As WAL-E does: ``gpg -e -z 0 -r KEY``."""
        return self.gpg("-e", "-z", "0", *(word for name in recipients for word in ("-r", name)), data=data)

    def encrypt_as_wal_g(self, data: bytes, recipient: str) -> bytes:
        """The same in the shape of go-crypto's: the data is marked as text, and lies in parts of growing length."""
        message = self.encrypt(b"", recipient)
        second = 3 + int.from_bytes(message[1:3], "big")  # behind the session key packet
        assert message[0] == 0x85
        command = ["gpg", "--homedir", str(self.folder), "--batch", "--show-session-key", "--decrypt"]
        shown = subprocess.run(command, input=message, capture_output=True, check=True).stderr
        found = re.search(rb"session key: '9:([0-9A-F]{64})'", shown)
        assert found is not None, shown
        literal = b"\xcb" + in_parts(b"u\0" + bytes(4) + data)
        return message[:second] + b"\xd2" + in_parts(b"\1" + _protected(bytes.fromhex(found[1].decode()), literal))


def in_parts(body: bytes) -> bytes:
    """The body of a packet in the new format, with partial lengths of 512 bytes and more."""
    out, power = b"", 9
    while len(body) > 1 << power:
        out += bytes((0xE0 | power,)) + body[: 1 << power]
        body, power = body[1 << power :], min(power + 1, 15)
    return out + b"\xff" + len(body).to_bytes(4, "big") + body


def _protected(key: bytes, packets: bytes) -> bytes:
    """Encrypted with AES in CFB mode, with a random begin and the code of RFC 4880, section 5.13, at its end."""
    begin = os.urandom(16)
    plain = begin + begin[-2:] + packets + b"\xd3\x14"
    plain += hashlib.sha1(plain, usedforsecurity=False).digest()
    block = Cipher(AES(key), ECB()).encryptor()
    out, last = bytearray(), bytes(16)
    for at in range(0, len(plain), 16):
        piece = plain[at : at + 16]
        last = bytes(left ^ right for left, right in zip(piece, block.update(last), strict=False))
        out += last
    return bytes(out)


@contextmanager
def new_keyring() -> Iterator[Keyring]:
    """An empty keyring that everybody may read; its agent ends with it."""
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not on this machine")
    folder = Path(tempfile.mkdtemp(prefix="pgb-gpg-"))  # short: the agent's socket lies in it
    try:
        yield Keyring(folder)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(folder), "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def keyring() -> Iterator[Keyring]:
    """Two keys without a passphrase, one for each kind of session key packet in use."""
    with new_keyring() as made:
        made.make_key(RSA, "RSA\nKey-Length: 2048", "RSA\nSubkey-Length: 2048")
        made.make_key(CURVE, "EDDSA\nKey-Curve: ed25519", "ECDH\nSubkey-Curve: cv25519")
        yield made


@pytest.fixture
def own_keyring(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> Keyring:
    """The same keyring, as that of the user that runs pgbackup."""
    monkeypatch.setenv("GNUPGHOME", str(keyring.folder))
    return keyring
