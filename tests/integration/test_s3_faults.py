"""S3Store when the way to a real server breaks: resumed reads, outages, refusals, and no secret in any message."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from pgbackup.errors import ObjectMissing, StorageError, StoreDenied, StoreUnavailable
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.s3 import S3Store
from tests.fix_proxy import Address, TcpProxy
from tests.fix_store import S3Server, new_prefix, open_s3, set_aws_env

DATA = random.Random(1).randbytes(5_000_000)

CALLS: dict[str, Callable[[ObjectStore], object]] = {
    "put": lambda store: store.put("k", b"x"),
    "put_if_absent": lambda store: store.put_if_absent("new", b"x"),
    "replace": lambda store: store.replace("k", b"x", "etag"),
    "get": lambda store: store.get("k"),
    "open_read": lambda store: store.open_read("k").__enter__(),
    "head": lambda store: store.head("k"),
    "list": lambda store: list(store.list()),
    "list_level": lambda store: store.list_level(),
    "delete": lambda store: store.delete(["k"]),
    "delete several": lambda store: store.delete(["k", "l"]),
    "start_upload": lambda store: store.start_upload("m"),
    "list_uploads": lambda store: store.list_uploads(),
    "abort_upload": lambda store: store.abort_upload("m", "0123456789abcdef"),
    "clock": lambda store: store.clock(),
}
WRITES = {"put", "put_if_absent", "delete", "delete several", "start_upload", "abort_upload"}


@pytest.fixture
def proxied(s3_server: S3Server, s3_proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store that is reached through the proxy."""
    return open_s3(s3_server.through(s3_proxy.port), monkeypatch)


# -- reads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [[2_000_000], [600, 100_000, 1_500_000, 700], [4_999_999]])
def test_a_broken_read_goes_on_where_it_was(proxied: S3Store, s3_proxy: TcpProxy, cuts: list[int]) -> None:
    proxied.put("k", DATA)
    s3_proxy.cut()
    before = s3_proxy.connections
    for cut in cuts:
        s3_proxy.cut_after(cut)
    found = bytearray()
    with proxied.open_read("k") as stream:
        while data := stream.read(300_000):
            found += data
    assert found == DATA
    assert s3_proxy.connections > before + len(cuts)


def test_a_whole_object_survives_a_break(proxied: S3Store, s3_proxy: TcpProxy) -> None:
    proxied.put("k", DATA)
    s3_proxy.cut()
    s3_proxy.cut_after(1_000_000)
    assert proxied.get("k") == DATA


def test_a_read_that_gets_nowhere_ends(proxied: S3Store, s3_proxy: TcpProxy) -> None:
    """Each connection dies soon after the headers: an error in bounded time, never an end."""
    proxied.put("k", DATA)
    s3_proxy.cut()
    s3_proxy.cut_after(700, times=1000)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        proxied.get("k")
    assert time.monotonic() - started < 60


def test_a_read_never_mixes_two_versions(proxied: S3Store, s3_proxy: TcpProxy) -> None:
    proxied.put("k", DATA)
    with proxied.open_read("k") as stream:
        assert stream.read(1000)
        s3_proxy.cut()
        proxied.put("k", DATA[::-1])
        with pytest.raises(StorageError, match="changed while it was read"):
            stream.read()


def test_an_object_that_goes_while_it_is_read(proxied: S3Store, s3_proxy: TcpProxy) -> None:
    proxied.put("k", DATA)
    with proxied.open_read("k") as stream:
        assert stream.read(1000)
        s3_proxy.cut()
        proxied.delete(["k"])
        with pytest.raises(ObjectMissing):
            stream.read()


def test_a_read_that_is_left_early_harms_nobody(proxied: S3Store, s3_proxy: TcpProxy) -> None:
    proxied.put("k", DATA)
    for _ in range(3):
        with proxied.open_read("k") as stream:
            assert len(stream.read(1000)) == 1000
    assert proxied.get("k") == DATA


def test_connections_are_used_again(proxied: S3Store, s3_proxy: TcpProxy) -> None:
    proxied.put("k", DATA)
    proxied.put("empty", b"")
    before = s3_proxy.connections
    for _ in range(5):
        with proxied.open_read("k") as stream:
            stream.read()
        assert proxied.get("empty") == b""
        assert proxied.head("k") is not None
        assert proxied.head("missing") is None
    assert s3_proxy.connections == before


# -- writes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 1_000_000])
@pytest.mark.parametrize("times", [1, 4])
def test_a_put_that_breaks_before_its_body_leaves_no_object(
    proxied: S3Store, s3_proxy: TcpProxy, size: int, times: int
) -> None:
    """SeaweedFS makes an empty object of it, which would keep the real one out for ever, unless it knows the MD5."""
    proxied.put_if_absent("first", b"the store is known now")
    s3_proxy.cut()
    s3_proxy.cut_before_bodies(times)
    if times < 4:
        assert proxied.put_if_absent("k", DATA[:size])
    else:
        with pytest.raises(StoreUnavailable):
            proxied.put_if_absent("k", DATA[:size])
        time.sleep(0.5)
        assert proxied.head("k") is None
        assert proxied.put_if_absent("k", DATA[:size])
    assert proxied.get("k") == DATA[:size]


# -- outages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_a_store_that_is_down_is_given_up_soon(proxied: S3Store, s3_proxy: TcpProxy, name: str) -> None:
    s3_proxy.stop_listening()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        CALLS[name](proxied)
    assert time.monotonic() - started < 15
    assert caught.value.retryable
    assert str(s3_proxy.port) in str(caught.value)


def test_a_store_that_comes_back_is_used_again(proxied: S3Store, s3_proxy: TcpProxy) -> None:
    proxied.put("k", b"x")
    s3_proxy.stop_listening()
    with pytest.raises(StoreUnavailable):
        proxied.get("k")
    s3_proxy.listen()
    assert proxied.get("k") == b"x"
    assert proxied.put_if_absent("l", b"y") is True


def test_a_short_outage_is_not_noticed(proxied: S3Store, s3_proxy: TcpProxy) -> None:
    proxied.put("k", b"x")
    s3_proxy.cut()
    assert proxied.get("k") == b"x"
    s3_proxy.cut_after(0)
    s3_proxy.cut()
    assert proxied.get("k") == b"x"


@pytest.mark.parametrize("name", ["put_if_absent", "get", "list", "clock"])
def test_a_store_that_hangs_is_given_up(
    s3_server: S3Server, s3_proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """After two read timeouts: a minute with the 30 s of every day, 2 s here."""
    server = s3_server.through(s3_proxy.port)
    store = open_s3(server, monkeypatch, connect_timeout_seconds=1, read_timeout_seconds=1, round_limit_seconds=0.8)
    store.put("k", b"x")
    s3_proxy.pause()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        CALLS[name](store)
    assert 1.9 < time.monotonic() - started < 5
    s3_proxy.resume()
    assert store.get("k") == b"x"


def test_a_read_that_hangs_is_resumed(s3_server: S3Server, s3_proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_s3(s3_server.through(s3_proxy.port), monkeypatch, read_timeout_seconds=1)
    store.put("k", DATA)
    with store.open_read("k") as stream:
        found = stream.read(1000)
        s3_proxy.pause()
        s3_proxy.cut()
        s3_proxy.resume()
        while data := stream.read(1_000_000):
            found += data
    assert found == DATA


@pytest.mark.parametrize("over_tls", [False, True])
def test_a_slow_uplink_is_no_outage(
    request: pytest.FixtureRequest,
    tcp_proxy: Callable[[Address], TcpProxy],
    monkeypatch: pytest.MonkeyPatch,
    over_tls: bool,
) -> None:
    """A body takes longer than the connect timeout, which is that of sending too, but keeps moving."""
    server: S3Server = request.getfixturevalue("s3_tls_server" if over_tls else "s3_server")
    proxy = tcp_proxy(("127.0.0.1", server.port))
    store = open_s3(server.through(proxy.port), monkeypatch, connect_timeout_seconds=1, attempts=1)
    store.head("k")  # the handshake is not what is to be slow
    proxy.delay_seconds = 0.01
    started = time.monotonic()
    store.put("k", DATA * 2)
    upload = store.start_upload("l")
    upload.put_part(1, DATA)
    assert time.monotonic() - started > 3
    proxy.delay_seconds = 0
    assert upload.complete()
    assert store.get("k") == DATA * 2
    assert store.get("l") == DATA


# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(WRITES))
def test_the_missing_permission_is_named(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, s3_store: S3Store, name: str
) -> None:
    s3_store.put("k", b"x")
    prefix = s3_store.url.rpartition("/")[2]
    reader = open_s3(s3_server.as_reader(), monkeypatch, prefix)
    assert reader.get("k") == b"x"
    with pytest.raises(StoreDenied) as caught:
        CALLS[name](reader)
    needed = {
        "abort_upload": "s3:AbortMultipartUpload",
        "delete": "s3:DeleteObject",
        "delete several": "s3:DeleteObject",
    }
    assert needed.get(name, "s3:PutObject") in str(caught.value)
    assert s3_server.bucket in caught.value.hint
    assert s3_store.get("k") == b"x"


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("access_key", "secret_key", "hint"),
    [("nobody", "SOME-SECRET", "AWS_ACCESS_KEY_ID"), ("testadmin", "WRONG-SECRET", "AWS_SECRET_ACCESS_KEY")],
)
def test_wrong_credentials(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, name: str, access_key: str, secret_key: str, hint: str
) -> None:
    server = replace(s3_server, access_key=access_key, secret_key=secret_key)
    store = open_s3(server, monkeypatch)
    if name == "clock":
        # The answer that refuses tells the time.
        assert store.clock() is not None
        return
    with pytest.raises(StoreDenied) as caught:
        CALLS[name](store)
    text = f"{caught.value} {caught.value.hint}"
    # HEAD answers have no body that could name the reason.
    assert hint in text or "HeadObject" in text
    assert server.secret_key not in text


@pytest.mark.parametrize("name", ["put_if_absent", "get", "list"])
def test_no_credentials(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    env = s3_server.env(new_prefix())
    del env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
    set_aws_env(env, monkeypatch)
    store = S3Store(env["PGBACKUP_REPOSITORY"])
    with pytest.raises(StoreDenied, match="no credentials") as caught:
        CALLS[name](store)
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


@pytest.mark.parametrize("name", CALLS)
def test_a_missing_bucket_is_named(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    store = open_s3(replace(s3_server, bucket="no-such-bucket"), monkeypatch)
    with pytest.raises(StorageError, match="bucket no-such-bucket does not exist") as caught:
        CALLS[name](store)
    assert not isinstance(caught.value, ObjectMissing)
    assert "Create the bucket" in caught.value.hint


def test_an_unknown_authority(s3_tls_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_s3(replace(s3_tls_server, ca_file=None), monkeypatch)
    with pytest.raises(StorageError, match="not trusted") as caught:
        store.get("k")
    assert "AWS_CA_BUNDLE" in caught.value.hint
    assert not caught.value.retryable


def test_https_to_a_server_without_it(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_s3(replace(s3_server, endpoint=s3_server.endpoint.replace("http:", "https:")), monkeypatch)
    with pytest.raises(StorageError, match="does not speak TLS"):
        store.get("k")
