"""One bucket of an S3 store: the boto3 client, set up for backups, and the one place where its calls are made.

boto3 reads endpoint, region, credentials and CA from its own environment variables and files. A store that is not
AWS gets path-style addresses and no checksum headers but Content-MD5 with whole objects, because most of them know
neither; AWS gets a CRC-32 with every body, which buckets with object lock insist on. Over TLS the payload is not
hashed for the signature, which is half the CPU of an upload.

Time is bounded twice. botocore's standard mode makes two attempts; if they fail soon and the failure may pass, they
are made once more. So a store that refuses or throttles gets four attempts, and one that hangs is given up after
two read timeouts, about a minute.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from pgbackup.config.store_connection import StoreConnection
from pgbackup.errors import ConfigError, StorageError
from pgbackup.storage.s3_body import BODY_TYPE
from pgbackup.storage.s3_errors import FOREIGN_ERRORS, Conflict, Request, redact, translate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

CONFLICT_ROUNDS = 6
ATTEMPTS_PER_ROUND = 2


@dataclass(frozen=True, slots=True)
class S3Options:
    """Limits of the connection, and what of it boto3's own configuration does not say."""

    connect_timeout_seconds: float = 5
    read_timeout_seconds: float = 30
    attempts: int = 4
    connections: int = 16
    round_limit_seconds: float = 25
    """After a round that took longer than this, the same call is not made again."""

    checksums: bool | None = None
    """Whether bodies are sent with a checksum; None: on AWS only."""

    connection: StoreConnection = field(default_factory=StoreConnection)


class Bucket:
    """Makes calls on one bucket: repeats what may pass, translates what does not."""

    def __init__(self, name: str, options: S3Options) -> None:
        _quiet_loggers()
        self.name = name
        self.client, self.on_aws = _connect(name, options)
        self.endpoint = redact(self.client.meta.endpoint_url)
        self.over_tls = self.client.meta.endpoint_url.startswith("https:")
        self.seen = False
        """True once the store answered a request on this bucket, so that a 404 is about a key."""
        self.checksums = self.on_aws if options.checksums is None else options.checksums
        self._options = options

    def call(self, operation: str, key: str, function: Callable[[], T]) -> T:
        """``function()``, one boto3 call of that operation. Raises StorageErrors only."""
        request = Request(operation, self.name, key, self.endpoint)
        deadline = time.monotonic() + self._options.round_limit_seconds
        made = 0
        while True:
            made += 1
            try:
                result = function()
            except FOREIGN_ERRORS as error:
                problem = translate(error, request)
                if not self._may_pass(problem, made) or time.monotonic() > deadline:
                    raise problem from error
            else:
                self.seen = True
                return result
            pause(made)

    def _may_pass(self, problem: StorageError, made: int) -> bool:
        if isinstance(problem, Conflict):
            return made < CONFLICT_ROUNDS
        return problem.retryable and made * ATTEMPTS_PER_ROUND < self._options.attempts

    def close(self) -> None:
        self.client.close()


def pause(count: int) -> None:
    """Wait before try ``count + 1``, at random so that writers do not meet again. Short: a stop waits for it."""
    time.sleep(random.uniform(0.1, 0.4) * min(count, 5))  # noqa: S311 - no secret


def _connect(bucket: str, options: S3Options) -> tuple[S3Client, bool]:
    """A client, and whether it talks to AWS itself."""
    _check_certificates(options.connection.ca_file or os.environ.get("AWS_CA_BUNDLE", ""))
    try:
        session = boto3.session.Session()
        connection = options.connection

        def make(style: dict[str, Any]) -> S3Client:
            return session.client(
                "s3",
                # Every SDK but boto3 reads AWS_REGION; stores of other makers insist on the right one.
                region_name=os.environ.get("AWS_REGION") or None,
                endpoint_url=connection.endpoint,
                verify=connection.ca_file,
                config=_config(options, style),
            )

        client = make({})
        parts = urlsplit(client.meta.endpoint_url)
        on_aws = (parts.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
        style: dict[str, Any] = {"payload_signing_enabled": False} if parts.scheme == "https" else {}
        if connection.addressing is not None or not on_aws:
            style["addressing_style"] = connection.addressing or "path"
        if style:
            # Only a client knows the endpoint that all of boto3's sources add up to, so it takes two.
            client.close()
            client = make(style)
        client.meta.events.register("before-call.s3.UploadPart", _name_type)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"cannot set up the connection to bucket {bucket}",
            detail=redact(str(error)),
            hint="Check the AWS_ variables and the files that they name.",
        ) from error
    return client, on_aws


def _name_type(params: dict[str, Any], **_: Any) -> None:
    """boto3 has no argument for the type of a part's body."""
    params["headers"].setdefault("Content-Type", BODY_TYPE)


def _check_certificates(file: str) -> None:
    """boto3 takes a file of authorities that cannot be read for a store that does not answer. Raises ConfigError."""
    if not file:
        return
    try:
        # Not access(2), which does not count capabilities; it may be a folder of certificates, too.
        os.close(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as exc:
        raise ConfigError(
            f"the certificates of authorities in {file} cannot be read",
            detail=exc.strerror or str(exc),
            hint="Correct AWS_CA_BUNDLE, or the rights of that file.",
        ) from exc


def _config(options: S3Options, style: Any) -> Config:
    return Config(
        connect_timeout=options.connect_timeout_seconds,
        read_timeout=options.read_timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": min(ATTEMPTS_PER_ROUND, options.attempts)},
        max_pool_connections=options.connections,
        # Checksums are asked for by name where they are wanted: boto3's own do not fit multipart uploads by hand.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3=style,
    )


def _quiet_loggers() -> None:
    """Their DEBUG lines hold signatures and bodies, whatever level the application logs at."""
    for name in ("boto3", "botocore", "urllib3"):
        logger = logging.getLogger(name)
        if logger.level < logging.WARNING:
            logger.setLevel(logging.WARNING)
