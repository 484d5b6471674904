"""A keyring of the ``gpg`` program with keys of its own, and messages to them as WAL-E makes them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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
