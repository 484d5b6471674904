"""What the demo's S3 server leaves behind: nothing of its own, and nothing of others is touched."""

from __future__ import annotations

import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from pgbackup.demo import s3_server

_NOBODY = 65534


def _remove_as_nobody(ports: list[int]) -> None:
    os.setgroups([])
    os.setgid(_NOBODY)
    os.setuid(_NOBODY)
    s3_server.remove_sockets(ports)


def test_the_sockets_of_its_ports_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_server, "_SOCKETS", tmp_path / "seaweedfs-*-grpc-*.sock")
    for name in ("seaweedfs-volume-grpc-1001.sock", "seaweedfs-filer-grpc-1002.sock", "seaweedfs-filer-grpc-1003.sock"):
        (tmp_path / name).touch()
    s3_server.remove_sockets([1001, 1002])
    assert [path.name for path in tmp_path.iterdir()] == ["seaweedfs-filer-grpc-1003.sock"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave something as another user")
def test_what_another_user_left_for_the_same_port_is_no_error() -> None:
    """The folder is everybody's, and ports come again: the demo ended with a traceback after all had gone well."""
    theirs = s3_server._SOCKETS.parent / "seaweedfs-test-grpc-70001.sock"
    theirs.touch()
    try:
        process = multiprocessing.get_context("fork").Process(target=_remove_as_nobody, args=([70001],))
        process.start()
        process.join(20)
        assert process.exitcode == 0
        assert theirs.exists()
    finally:
        theirs.unlink()


def test_a_port_that_somebody_took_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_ports = s3_server._free_ports
    tries = 0
    with socket.create_server(("127.0.0.1", 0)) as theirs:

        def one_is_taken(count: int) -> list[int]:
            nonlocal tries
            tries += 1
            ports = free_ports(count)
            return [*ports[:4], theirs.getsockname()[1], *ports[5:]] if tries == 1 else ports

        monkeypatch.setattr(s3_server, "_free_ports", one_is_taken)
        server = s3_server.S3Server(tmp_path / "s3")
        try:
            server.make_bucket()
        finally:
            server.close()
    assert tries == 2
