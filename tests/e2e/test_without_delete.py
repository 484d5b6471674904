"""Credentials that may not delete (docker/iam/policy-without-delete.json): everything but removal goes on."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import boto3
import pytest

from tests.fix_app import MakeProgram, wait_shipped
from tests.fix_postgres import ServerFactory
from tests.fix_store import S3Server


@pytest.fixture
def undeletable(s3_own_bucket: S3Server) -> Iterator[S3Server]:
    """A bucket whose policy denies deletions to everybody. SeaweedFS asks it for single ones only, not for many
    at once: seals and intents stay, which is what would stop us; the unit tests refuse the others."""
    client = boto3.client(
        "s3", endpoint_url=s3_own_bucket.endpoint, region_name="us-east-1",
        aws_access_key_id=s3_own_bucket.access_key, aws_secret_access_key=s3_own_bucket.secret_key,
    )  # fmt: skip
    statement = {
        "Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject",
        "Resource": f"arn:aws:s3:::{s3_own_bucket.bucket}/*",
    }  # fmt: skip
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    client.put_bucket_policy(Bucket=s3_own_bucket.bucket, Policy=json.dumps(policy))
    client.put_object(Bucket=s3_own_bucket.bucket, Key="probe", Body=b"")
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket=s3_own_bucket.bucket, Key="probe")
    yield s3_own_bucket
    client.delete_bucket_policy(Bucket=s3_own_bucket.bucket)


@pytest.mark.timeout(400)
def test_backups_and_wal_go_on_and_expiry_reports(
    make_server: ServerFactory, make_program: MakeProgram, undeletable: S3Server
) -> None:
    server = make_server(settings={"max_slot_wal_keep_size": "1GB"})
    server.execute("CREATE TABLE goods (id serial, text text)")
    program = make_program(server, **undeletable.env(f"main-{uuid.uuid4().hex[:8]}"), PGBACKUP_RETENTION_BACKUPS="1",
                           PGBACKUP_RETENTION_WINDOW="0")  # fmt: skip
    for round_ in range(2):
        resident = program.run()
        program.wait_backups(1)
        for _ in range(2):
            server.execute("INSERT INTO goods (text) SELECT repeat('x', 100) FROM generate_series(1, 2000)")
            wait_shipped(program, server)
            server.execute("SELECT pg_switch_wal()")
        if round_ == 0:
            program("backup")
        wait_shipped(program, server)
        assert program.json("gaps")["gaps"] == []
        resident.terminate()
        assert "WAL streaming stands" not in resident.log()
        assert "Traceback" not in resident.log()
    done = program.json("expire", "--apply")
    assert done["result"]["backups"] == []
    assert done["result"]["retained"]["objects"] > 0
    assert done["result"]["stopped"] is None
    assert len(program.wait_backups(2)) == 2
