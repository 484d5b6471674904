"""Decrypt objects with the ``gpg`` program: what WAL-E (WALE_GPG_KEY_ID) and WAL-G (WALG_PGP_KEY) encrypted.

The secret key is the one in gpg's keyring (GNUPGHOME, or ~/.gnupg of whoever runs us). Content streams through the
program; it shows bytes before it has checked the message's integrity code, so the end of our stream comes only after
the program said, by status line and exit status, that the whole message was decrypted and its code was right (GnuPG's
doc/DETAILS: DECRYPTION_OKAY and GOODMDC, which GnuPG 2.3 and later say for OCB as well). It takes the encryption off
and no more (--unwrap): what is in the message is read in openpgp_literal.py.

Everything happens in the caller's thread, with bounded buffers. The program has a process group of its own, so that a
Ctrl-C of the terminal is ours to handle, and is killed as soon as nobody reads on. It never asks for a passphrase:
what gpg-agent does not know is an error.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NoReturn

from pgbackup.errors import CorruptObject, ToolError
from pgbackup.repository.openpgp_literal import LiteralProblem, literal_content

_READ_BYTES: Final = 256 << 10
_SILENCE_SECONDS: Final = 120.0
_END_SECONDS: Final = 10.0
_TAIL_BYTES: Final = 2000
_STATUS_BYTES: Final = 64 << 10
_KEPT_VARIABLES: Final = ("GNUPGHOME", "HOME", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "XDG_RUNTIME_DIR")
"""No secret of ours goes to another program."""

_RECIPIENT: Final = ": encrypted with "
"""It names every recipient on stderr, which is no problem."""

_NEEDS_PASSPHRASE: Final = ("MISSING_PASSPHRASE", "NEED_PASSPHRASE", "No pinentry", "No passphrase", "canceled")


def decrypted(key: str, stored: Iterator[bytes]) -> Iterator[bytes]:
    """The plaintext of one OpenPGP message, object ``key``.

    Raises CorruptObject for a damaged message, ToolError when there is no program, no secret key or no passphrase.
    """
    program = shutil.which("gpg")
    if program is None:
        raise ToolError(
            f"object {key} is encrypted with GnuPG, and there is no gpg program",
            hint="Install gnupg, and import the secret key for the user that runs pgbackup.",
        )
    with _Run(program, key) as run:
        try:
            yield from literal_content(run.unwrapped(stored))
        except LiteralProblem as exc:
            if run.has_ended:
                run.check()  # why it ended early says the program best
            raise CorruptObject(key, str(exc)) from exc
        run.check()


class _Run:
    """One run of gpg over one message."""

    def __init__(self, program: str, key: str) -> None:
        self._key = key
        self._status = bytearray()
        self._errors = bytearray()
        status_read, status_write = os.pipe()
        command = [
            program, "--batch", "--no-tty", "--pinentry-mode", "error",
            "--status-fd", str(status_write), "--unwrap", "--decrypt",
        ]  # fmt: skip
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                pass_fds=(status_write,), process_group=0, cwd="/", env=_environment(),
            )  # fmt: skip
        except OSError as exc:
            os.close(status_read)
            raise ToolError(f"{program} cannot be run", detail=exc.strerror or str(exc)) from exc
        finally:
            os.close(status_write)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._stdin = self._process.stdin
        self._stdout = self._process.stdout.fileno()
        self._outputs = (self._stdout, self._process.stderr.fileno(), status_read)
        self._status_read = status_read
        self.has_ended = False
        """Whether the program has closed its output."""

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        os.close(self._status_read)
        self._process.wait()

    def unwrapped(self, stored: Iterator[bytes]) -> Iterator[bytes]:
        """Feed the message and hand on the packets in it, until the program closes its output."""
        with selectors.DefaultSelector() as selector:
            for descriptor in (self._stdin.fileno(), *self._outputs):
                os.set_blocking(descriptor, False)
            selector.register(self._stdin, selectors.EVENT_WRITE)
            for descriptor in self._outputs:
                selector.register(descriptor, selectors.EVENT_READ)
            waiting = memoryview(b"")
            moved = time.monotonic()
            while True:
                ready = selector.select(_SILENCE_SECONDS)
                if time.monotonic() - moved > _SILENCE_SECONDS:
                    raise ToolError(f"gpg did nothing for {_SILENCE_SECONDS:g} seconds", detail=self._tail())
                for selected, _ in ready:
                    if selected.fileobj is self._stdin:
                        waiting = waiting or memoryview(next(stored, b""))
                        sent = self._send(waiting)
                        if not sent:
                            selector.unregister(self._stdin)
                            self._stdin.close()
                        waiting, moved = waiting[sent:], time.monotonic()
                        continue
                    data = os.read(selected.fd, _READ_BYTES)
                    if not data:
                        selector.unregister(selected.fd)
                        if selected.fd == self._stdout:
                            self.has_ended = True
                            return
                    elif selected.fd == self._stdout:
                        yield data
                        moved = time.monotonic()
                    else:
                        self._keep(selected.fd, data)

    def check(self) -> None:
        """Raise unless the whole message was decrypted and proven. For use behind the end of its output."""
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise ToolError("gpg closed its output and does not end", detail=self._tail()) from None
        for descriptor in self._outputs:
            if descriptor != self._stdout:
                self._drain(descriptor)
        lines = [line[9:].split() for line in self._status.decode("utf-8", "replace").splitlines()]
        words = [line[0] for line in lines if line]
        # PLAINTEXT: something in the message was not encrypted.
        proven = words.count("DECRYPTION_OKAY") == words.count("GOODMDC") == 1
        if code == 0 and proven and "PLAINTEXT" not in words:
            return
        self._refuse(code, words)

    def _refuse(self, code: int, words: list[str]) -> NoReturn:
        tail = self._tail()
        detail = f"gpg ended with exit status {code}; {tail}"
        if "DECRYPTION_INFO" in words:
            # It had the session key, so what is wrong is the message.
            raise CorruptObject(self._key, f"its OpenPGP message is damaged or cut short: {tail}")
        if "NO_SECKEY" in words:
            raise ToolError(
                f"object {self._key} is encrypted with GnuPG for a key that gpg does not have",
                detail=detail,
                hint="Import the secret key for the user that runs pgbackup (gpg --import), or set GNUPGHOME.",
            )
        if any(word in words or word in tail for word in _NEEDS_PASSPHRASE):
            raise ToolError(
                f"object {self._key} is encrypted for a secret key whose passphrase gpg-agent does not know",
                detail=detail,
                hint="Give it to the agent first (gpg-preset-passphrase, or a gpg --decrypt), or take it off the key.",
            )
        raise CorruptObject(self._key, f"gpg cannot decrypt it: {tail}")

    def _send(self, data: memoryview) -> int:
        """How many bytes the program took; 0 at the end, and when it takes no more."""
        try:
            return os.write(self._stdin.fileno(), data) if data else 0
        except BrokenPipeError:
            return 0

    def _keep(self, descriptor: int, data: bytes) -> None:
        if descriptor == self._status_read:
            self._status += data[: _STATUS_BYTES - len(self._status)]
            return
        self._errors += data
        del self._errors[:-_TAIL_BYTES]

    def _drain(self, descriptor: int) -> None:
        """Read what is there; a daemon that the program left behind may hold the other end open."""
        with suppress(BlockingIOError):
            while data := os.read(descriptor, _READ_BYTES):
                self._keep(descriptor, data)

    def _tail(self) -> str:
        """The end of what the program said, on one line; whoever shows it escapes what must not reach a terminal."""
        text = self._errors.decode("utf-8", "replace")
        lines = [line.strip() for line in text.split("\n") if line.startswith("gpg:") and _RECIPIENT not in line]
        return "; ".join(lines[-6:]) or "it said nothing"


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | {"LC_ALL": "C"}
