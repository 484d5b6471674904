"""Credentials that may not delete (docker/iam/policy-without-delete.json): everything but removal goes on."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from tests.fix_app import MakeProgram, Restore, wait_shipped
from tests.fix_postgres import ServerFactory
from tests.fix_proxy import Gateway
from tests.fix_store import S3Server


@dataclass
class Undeletable:
    """A bucket of which nothing can be removed, by the way of ``gateway``, until ``allow`` is called."""

    server: S3Server
    gateway: Gateway
    client: Any

    def deny(self) -> None:
        statement = {
            "Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject",
            "Resource": f"arn:aws:s3:::{self.server.bucket}/*",
        }  # fmt: skip
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        self.client.put_bucket_policy(Bucket=self.server.bucket, Policy=json.dumps(policy))
        self.gateway.keeps = True

    def allow(self) -> None:
        self.client.delete_bucket_policy(Bucket=self.server.bucket)
        self.gateway.keeps = False

    def denials(self) -> int:
        """How many requests to delete it has had; those that end an unfinished upload are another permission."""
        wanted = [each for each in self.gateway.requests if each.startswith("DELETE ") or each.endswith("?delete")]
        return len([each for each in wanted if "uploadId=" not in each])


@pytest.fixture
def undeletable(s3_own_bucket: S3Server) -> Iterator[Undeletable]:
    """The store's own policy denies single deletions. SeaweedFS does not ask it for many at once, so the gateway
    answers these as AWS would."""
    client = boto3.client(
        "s3", endpoint_url=s3_own_bucket.endpoint, region_name="us-east-1",
        aws_access_key_id=s3_own_bucket.access_key, aws_secret_access_key=s3_own_bucket.secret_key,
    )  # fmt: skip
    gateway = Gateway(s3_own_bucket)
    bucket = Undeletable(s3_own_bucket, gateway, client)
    bucket.deny()
    client.put_object(Bucket=s3_own_bucket.bucket, Key="probe", Body=b"")
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket=s3_own_bucket.bucket, Key="probe")
    yield bucket
    gateway.close()


@pytest.mark.timeout(400)
def test_backups_and_wal_go_on_and_expiry_reports(
    make_server: ServerFactory, make_program: MakeProgram, restore: Restore, undeletable: Undeletable
) -> None:
    server = make_server(settings={"max_slot_wal_keep_size": "1GB"})
    server.execute("CREATE TABLE goods (id serial, text text)")
    program = make_program(
        server, **undeletable.server.env(f"main-{uuid.uuid4().hex[:8]}"), PGBACKUP_RETENTION_BACKUPS="1",
        PGBACKUP_RETENTION_WINDOW="0",
    )  # fmt: skip
    kept = program.with_env(AWS_ENDPOINT_URL=f"http://127.0.0.1:{undeletable.gateway.port}")
    for _ in range(2):
        resident = kept.run()
        kept.wait_backups(1)
        for _ in range(2):
            server.execute("INSERT INTO goods (text) SELECT repeat('x', 100) FROM generate_series(1, 2000)")
            wait_shipped(kept, server)
            server.execute("SELECT pg_switch_wal()")
        # The second time beside all that could not be tidied away: intents, and pieces of segments that are whole.
        kept("backup")
        wait_shipped(kept, server)
        resident.terminate()
        assert "WAL streaming stands" not in resident.log()
        assert "Traceback" not in resident.log()
    assert kept.json("gaps")["gaps"] == []
    assert undeletable.denials() > 0

    plan = kept.json("expire", "--apply")
    done = plan["result"]
    assert [each["problem"] for each in plan["backups"]] == [""] * 3
    assert (done["backups"], done["objects"], done["stopped"]) == ([], 0, None)
    assert done["retained"]["objects"] > 0
    assert done["retained"]["first"]
    assert "s3:DeleteObject" in done["retained"]["reason"]

    # As the README says: what is no longer needed stays until somebody expires who may delete.
    undeletable.allow()
    done = program.json("expire", "--apply")["result"]
    assert (len(done["backups"]), done["retained"]["objects"], done["stopped"]) == (2, 0, None)
    copy = restore(program, server.major, "--latest")
    assert copy.execute("SELECT count(*) FROM goods") == [(8000,)]
