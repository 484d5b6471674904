"""Intents, leftovers and late seals, on the twin of a store whose clock the test sets."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.core.backup import Tablespace
from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.engines.backup.intent import Intent, OwnIntent, StoredIntent, read_intent, read_intents
from pgbackup.engines.backup.leftovers import clean_leftovers
from pgbackup.engines.backup.name import claim_name, sealed_twin
from pgbackup.engines.backup.seal import SealPlan, resume_seals, write_seal
from pgbackup.engines.presence.owner import Owner
from pgbackup.errors import BackupError, CorruptObject, DeleteRefused
from pgbackup.postgres.base_backup_stream import BackupStart
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.repository.documents import BackupDocuments, BackupExtras
from pgbackup.storage.memory import MemoryStore

SEGMENT_BYTES = 16 << 20
START = Lsn(0x2000028)
NAME = keys.backup_name(1, START, SEGMENT_BYTES)
KEY = keys.intent(1, SegmentName.containing(1, START).start)
STARTED = BackupStart(START, 1, (), None)
ELSEWHERE = Owner("elsewhere", "another boot", "another container", 77, 1234, "a")
CODEC = Codec(Compression("zstd", 1))
PART = keys.part(NAME, 1, "zst")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(now=clock)


def dead(host: str = "here") -> Owner:
    """An attempt of this process that has ended."""
    owner = Owner.new(host)
    owner.retire()
    return owner


def leave_behind(store: MemoryStore, owner: Owner, *, sealable: bool = False) -> SealPlan:
    """What a backup that was interrupted leaves: a part, an upload, an intent."""
    store.put(PART, b"part")
    plan = plan_of({PART: 4})
    if not sealable:
        store.start_upload(keys.part(NAME, 2, "zst"))
    intent = Intent(NAME, owner, 1, str(START), seal=plan.document() if sealable else None)
    store.put(KEY, intent.encode())
    return plan


def plan_of(objects: dict[str, int]) -> SealPlan:
    moment = datetime(2026, 1, 1, 1, tzinfo=UTC)
    documents = BackupDocuments(
        1, START, Lsn(0x2000100), 180001, 42, moment, moment, "here", "/data", 100, 4, False,
        (Tablespace(16385, "/mnt/t s"),), BackupExtras("0.1", corrupt_files={"base/5/1": [7]}),
    )  # fmt: skip
    return SealPlan(NAME, documents, objects)


def backup_keys(store: MemoryStore) -> list[str]:
    found = [info.key for info in store.list() if not info.key.startswith(keys.WAL)]
    return found + [upload.upload_id for upload in store.list_uploads()]


# -- who is there -----------------------------------------------------------------------------------------------------


def test_a_process_knows_itself_and_the_dead() -> None:
    owner = Owner.new("here")
    assert owner.is_gone() is False
    assert replace(owner, attempt="another").is_gone() is True
    assert replace(owner, pid=1, started=1).is_gone() is True
    assert replace(owner, boot="another").is_gone() is None
    owner.retire()
    assert owner.is_gone() is True
    assert Owner.parse(owner.document()) == owner


@pytest.mark.parametrize(
    ("owner", "hours", "expected"),
    [
        (ELSEWHERE, 0.01, "alive"),
        (ELSEWHERE, 1, "silent"),
        (ELSEWHERE, 25, "abandoned"),
        (replace(ELSEWHERE, host="here"), 0.01, "alive"),
        (replace(ELSEWHERE, host="here"), 1, "abandoned"),
        (dead(), 0, "abandoned"),
    ],
)
def test_how_alive_an_intent_is(owner: Owner, hours: float, expected: str, clock: Clock) -> None:
    found = StoredIntent(KEY, Intent(NAME, owner, 1, str(START)), "etag", clock.now)
    assert found.life("here", clock.now + timedelta(hours=hours)) == expected


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"backup": "../../x", "seal": null}', b"\xff"])
def test_a_strange_intent_is_left_alone(text: bytes, store: MemoryStore) -> None:
    store.put(KEY, text)
    with pytest.raises(CorruptObject):
        read_intent(store, KEY)
    assert list(read_intents(store)) == []
    assert clean_leftovers(store, "here") == []
    assert store.get(KEY) == text


def test_an_intent_that_was_taken_over_cannot_be_changed(store: MemoryStore) -> None:
    own = OwnIntent.claim(store, KEY, Intent(NAME, Owner.new("here"), 1, str(START)))
    assert own is not None
    assert OwnIntent.claim(store, KEY, own.intent) is None
    own.update(uploads=[["key", "id"]])
    found = read_intent(store, KEY)
    assert found is not None
    assert found.intent.uploads == [["key", "id"]]
    other = OwnIntent.take_over(store, found, ELSEWHERE)
    assert other is not None
    assert OwnIntent.take_over(store, found, ELSEWHERE) is None
    with pytest.raises(BackupError, match="taken over"):
        own.update()
    own.remove()
    assert read_intent(store, KEY) is not None
    other.remove()
    assert read_intent(store, KEY) is None


# -- leftovers --------------------------------------------------------------------------------------------------------


def test_leftovers_of_a_killed_process_go_at_once(store: MemoryStore) -> None:
    leave_behind(store, dead())
    assert clean_leftovers(store, "here") == [NAME]
    assert backup_keys(store) == []


def test_leftovers_of_another_machine_go_after_a_day(store: MemoryStore, clock: Clock) -> None:
    leave_behind(store, ELSEWHERE)
    for hours in (0.01, 1, 22):
        clock.advance(hours=hours)
        assert clean_leftovers(store, "here") == []
    clock.advance(hours=1.5)
    assert clean_leftovers(store, "here") == [NAME]
    assert backup_keys(store) == []


def test_objects_without_an_intent_go_after_a_day(store: MemoryStore, clock: Clock) -> None:
    store.put(PART, b"part")
    store.put(keys.sentinel("base_000000010000000000000009"), b"{}")
    store.put(keys.part("base_000000010000000000000009", 1, "zst"), b"sealed")
    store.put("basebackups_005/base_X_D_Y/tar_partitions/part_001.tar", b"of another tool")
    store.start_upload(keys.part("base_00000001000000000000000A", 1, "zst"))
    clock.advance(hours=23)
    assert clean_leftovers(store, "here") == []
    clock.advance(hours=2)
    assert clean_leftovers(store, "here") == [NAME, "base_00000001000000000000000A"]
    assert len(backup_keys(store)) == 3


def test_what_the_store_keeps_is_not_told_as_removed(
    store: MemoryStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Credentials that cannot delete: neither leftovers with an intent nor those without one are gone."""
    caplog.set_level("INFO", logger="pgbackup")
    leave_behind(store, dead())
    store.put(keys.part("base_00000001000000000000000A", 1, "zst"), b"part")
    clock.advance(hours=25)
    store.fail_next("delete", DeleteRefused("the policy forbids it"), times=10**6)
    assert clean_leftovers(store, "here") == []
    assert PART in backup_keys(store)
    assert "removed" not in caplog.text
    assert "stay: the policy forbids it" in caplog.text


def test_a_sealed_backup_is_never_touched(store: MemoryStore, clock: Clock) -> None:
    """Killed between the sentinel and the end: only the intent goes."""
    leave_behind(store, dead())
    store.put(keys.sentinel(NAME), b"{}")
    clock.advance(days=3)
    assert clean_leftovers(store, "here") == []
    assert PART in backup_keys(store)
    assert KEY not in backup_keys(store)


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_name_is_claimed_once(store: MemoryStore) -> None:
    own = claim_name(store, NAME, STARTED, SEGMENT_BYTES, "here")
    with pytest.raises(BackupError, match="being taken by process") as caught:
        claim_name(store, NAME, STARTED, SEGMENT_BYTES, "here")
    assert caught.value.retryable
    own.remove()
    claim_name(store, NAME, STARTED, SEGMENT_BYTES, "here").remove()
    assert backup_keys(store) == []


def test_a_name_with_leftovers(store: MemoryStore, clock: Clock) -> None:
    leave_behind(store, dead())
    claim_name(store, NAME, STARTED, SEGMENT_BYTES, "here").remove()
    store.put(PART, b"somebody's")
    with pytest.raises(BackupError, match="nobody claims") as caught:
        claim_name(store, NAME, STARTED, SEGMENT_BYTES, "here")
    assert caught.value.retryable
    assert backup_keys(store) == [PART]
    clock.advance(hours=25)
    claim_name(store, NAME, STARTED, SEGMENT_BYTES, "here").remove()
    assert backup_keys(store) == []


# -- seals ------------------------------------------------------------------------------------------------------------


def put_wal(store: MemoryStore) -> None:
    store.put(keys.wal("000000010000000000000002", "zst"), CODEC.encode(b""))


def test_a_plan_survives_the_intent() -> None:
    plan = plan_of({PART: 4})
    assert SealPlan.parse(NAME, KEY, json.loads(json.dumps(plan.document()))) == plan
    with pytest.raises(CorruptObject):
        SealPlan.parse(NAME, KEY, {"documents": {}})


def test_a_copy_is_sealed_by_whoever_comes_next(store: MemoryStore) -> None:
    leave_behind(store, dead(), sealable=True)
    assert clean_leftovers(store, "here") == []
    assert resume_seals(store, "here", threading.Event(), stalled_seconds=0) == []
    put_wal(store)
    assert resume_seals(store, "here", threading.Event(), stalled_seconds=0) == [NAME]
    assert keys.sentinel(NAME) in backup_keys(store)
    assert keys.metadata(NAME) in backup_keys(store)
    assert KEY not in backup_keys(store)
    assert resume_seals(store, "here", threading.Event()) == []


def test_a_copy_of_somebody_alive_is_his(store: MemoryStore, clock: Clock) -> None:
    leave_behind(store, ELSEWHERE, sealable=True)
    put_wal(store)
    assert resume_seals(store, "here", threading.Event()) == []
    clock.advance(hours=1)
    assert resume_seals(store, "here", threading.Event()) == [NAME]


def test_a_copy_whose_wal_never_comes_goes_after_a_day(store: MemoryStore, clock: Clock) -> None:
    leave_behind(store, dead(), sealable=True)
    clock.advance(hours=25)
    assert clean_leftovers(store, "here") == [NAME]
    assert backup_keys(store) == []


@pytest.mark.parametrize("change", ["more", "less", "other"])
def test_a_folder_that_is_not_what_was_uploaded_is_not_sealed(change: str, store: MemoryStore) -> None:
    plan = leave_behind(store, dead(), sealable=True)
    match change:
        case "more":
            store.put(keys.part(NAME, 2, "zst"), b"another writer's")
        case "less":
            store.delete([PART])
        case _:
            store.put(PART, b"other")
    found = read_intent(store, KEY)
    assert found is not None
    own = OwnIntent.take_over(store, found, Owner.new("here"))
    assert own is not None
    with pytest.raises(BackupError, match="does not hold what was uploaded"):
        write_seal(store, plan, own, wal_tail=False)
    own.leave()
    assert keys.sentinel(NAME) not in backup_keys(store)


def test_a_foreign_seal_is_no_success(store: MemoryStore) -> None:
    plan = leave_behind(store, dead(), sealable=True)
    store.on_call = lambda operation, key: (
        store._store(key, b"{}") if operation == "put_if_absent" and key == keys.sentinel(NAME) else None
    )
    found = read_intent(store, KEY)
    assert found is not None
    own = OwnIntent.take_over(store, found, Owner.new("here"))
    assert own is not None
    with pytest.raises(BackupError, match="sealed by somebody else"):
        write_seal(store, plan, own, wal_tail=False)
    own.leave()


def test_our_own_seal_that_was_stored_before_its_answer_got_lost(store: MemoryStore) -> None:
    plan = leave_behind(store, dead(), sealable=True)
    for _ in range(2):
        found = read_intent(store, KEY)
        assert found is not None
        own = OwnIntent.take_over(store, found, Owner.new("here"))
        assert own is not None
        write_seal(store, plan, own, wal_tail=True)
        own.leave()
    assert json.loads(store.get(keys.sentinel(NAME)))["UserData"]["pgbackup"]["wal_tail"] is True


# -- the same start LSN -----------------------------------------------------------------------------------------------


def seal_whole(store: MemoryStore) -> None:
    control = keys.control_tar(NAME, "zst")
    store.put(PART, b"pa")
    store.put(control, b"ct")
    manifest = keys.manifest(NAME, "zst")
    store.put(manifest, b"mf")
    put_wal(store)
    own = OwnIntent.claim(store, KEY, Intent(NAME, Owner.new("here"), 1, str(START)))
    assert own is not None
    plan = plan_of({PART: 2, control: 2, manifest: 2})
    whole = replace(plan.documents, extras=replace(plan.documents.extras, corrupt_files={}))
    write_seal(store, replace(plan, documents=whole), own, wal_tail=False)
    own.remove()


def test_nothing_new_to_back_up(store: MemoryStore) -> None:
    assert sealed_twin(store, CODEC, NAME, START) is None
    seal_whole(store)
    twin = sealed_twin(store, CODEC, NAME, START)
    assert twin is not None
    assert twin.name == NAME


def test_another_start_in_the_same_segment_is_tried_again_later(store: MemoryStore) -> None:
    seal_whole(store)
    with pytest.raises(BackupError, match="under its name") as caught:
        sealed_twin(store, CODEC, NAME, Lsn(START + 0x100))
    assert caught.value.retryable


@pytest.mark.parametrize("missing", [PART, keys.control_tar(NAME, "zst"), "wal_005/000000010000000000000002.zst"])
def test_a_twin_that_is_not_whole_is_an_error(missing: str, store: MemoryStore) -> None:
    seal_whole(store)
    store.delete([missing])
    with pytest.raises(BackupError, match="not whole") as caught:
        sealed_twin(store, CODEC, NAME, START)
    assert not caught.value.retryable


def test_uncompressed_wal_seals_too(store: MemoryStore) -> None:
    """Its key is the segment's bare name, which a listing after that name does not show."""
    leave_behind(store, dead(), sealable=True)
    store.put(keys.wal("000000010000000000000002", ""), b"whole")
    assert resume_seals(store, "here", threading.Event(), stalled_seconds=0) == [NAME]
