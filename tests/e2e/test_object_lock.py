"""A bucket with versions, each locked for a day: nothing in the way, and what is deleted can be had back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.fix_app import MakeProgram, Restore, wait_shipped
from tests.fix_postgres import ServerFactory
from tests.fix_store import S3Server

LIFECYCLE = Path(__file__).parents[2] / "docker" / "iam" / "lifecycle.json"


@pytest.fixture
def client(s3_server: S3Server) -> Iterator[Any]:
    client = boto3.client(
        "s3", endpoint_url=s3_server.endpoint, region_name="us-east-1",
        aws_access_key_id=s3_server.access_key, aws_secret_access_key=s3_server.secret_key,
    )  # fmt: skip
    yield client
    client.close()


@pytest.fixture
def locked(s3_server: S3Server, client: Any) -> S3Server:
    """A bucket that is like AWS's: a deletion that names no version leaves a marker, one of a locked version fails."""
    server = replace(s3_server, bucket=f"locked-{uuid.uuid4().hex[:12]}")
    client.create_bucket(Bucket=server.bucket, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    client.put_object_lock_configuration(Bucket=server.bucket, ObjectLockConfiguration=lock)
    lifecycle = json.loads(LIFECYCLE.read_text("utf-8").replace("PREFIX", "main"))
    client.put_bucket_lifecycle_configuration(Bucket=server.bucket, LifecycleConfiguration=lifecycle)
    version = client.put_object(Bucket=server.bucket, Key="probe", Body=b"")["VersionId"]
    assert client.delete_object(Bucket=server.bucket, Key="probe")["DeleteMarker"]
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket=server.bucket, Key="probe", VersionId=version)
    return server


def remove_markers(client: Any, bucket: str) -> int:
    """Undo all deletions. Returns how many there were."""
    markers = [
        {"Key": marker["Key"], "VersionId": marker["VersionId"]}
        for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket)
        for marker in page.get("DeleteMarkers", [])
    ]
    for marker in markers:
        client.delete_object(Bucket=bucket, **marker)
    return len(markers)


@pytest.mark.timeout(300)
def test_a_life_in_a_locked_bucket(
    make_server: ServerFactory, make_program: MakeProgram, restore: Restore, locked: S3Server, client: Any
) -> None:
    server = make_server(settings={"max_slot_wal_keep_size": "1GB"})
    server.execute("CREATE TABLE goods (id serial, text text)")
    program = make_program(
        server, **locked.env("main"), PGBACKUP_RETENTION_BACKUPS="1", PGBACKUP_RETENTION_WINDOW="0",
    )  # fmt: skip
    first = ""
    for count in (1, 2):
        resident = program.run()
        first = first or program.wait_backups(1)[0]["name"]
        for _ in range(2):
            server.execute("INSERT INTO goods (text) SELECT repeat('x', 100) FROM generate_series(1, 1000)")
            wait_shipped(program, server)
            server.execute("SELECT pg_switch_wal()")
        if count == 2:
            program("backup")
            wait_shipped(program, server)
        resident.terminate()
        assert "Traceback" not in resident.log()
    program("check")
    done = program.json("expire", "--apply")["result"]
    assert (done["backups"], done["retained"]["objects"], done["stopped"]) == ([first], 0, None)
    assert len(program.backups()) == 1
    program("verify")
    assert restore(program, server.major, "--latest").execute("SELECT count(*) FROM goods") == [(4000,)]

    # As the README says: whoever deletes with our credentials leaves markers, and all of it can be had back.
    for key in [info["Key"] for info in client.list_objects_v2(Bucket=locked.bucket)["Contents"]]:
        client.delete_object(Bucket=locked.bucket, Key=key)
    assert program.backups() == []
    assert remove_markers(client, locked.bucket) > 10
    restorable = [backup["name"] for backup in program.backups() if backup["restorable"]]
    assert len(restorable) == 2
    assert restore(program, server.major, "--latest").execute("SELECT count(*) FROM goods") == [(4000,)]
    assert restore(program, server.major, "--backup", first).execute("SELECT count(*) FROM goods") == [(4000,)]
