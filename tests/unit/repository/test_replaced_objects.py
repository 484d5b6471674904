"""What was replaced by something else under our eyes is named until it was read, by whatever has read it."""

from __future__ import annotations

import pytest

from pgbackup.core.lsn import Lsn, SegmentName
from pgbackup.engines.verify.wal_paths import wal_read_with
from pgbackup.engines.wal.upload_stats import UploadStats
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import read_catalog
from tests.made_backup import MadeRepository


def segment(number: int, timeline: int = 1) -> SegmentName:
    return SegmentName(timeline, number, 1 << 20)


@pytest.fixture
def stored() -> MadeRepository:
    """Two whole backups, and WAL of several pages."""
    made = MadeRepository()
    made.claim()
    for number in range(3, 1200):
        made.store.put(keys.wal(str(segment(number)), "zst"), b"x")
    for number in (5, 600):
        made.backup(Lsn((number << 20) + 40), Lsn(((number + 1) << 20) + 400), minutes=number)
    return made


def test_what_was_replaced_is_named_until_it_was_read(stored: MadeRepository) -> None:
    watch = stored.watched()
    for look in range(20):
        watch.look(float(look), moving=True)
    wal = keys.wal(str(segment(700)), "zst")
    stored.store.put(wal, b"y")
    part = next(info.key for info in stored.store.list(keys.BASEBACKUPS) if "part_002" in info.key)
    stored.store.put(part, bytes(len(stored.store.get(part))))
    for look in range(20):
        watch.look(20.0 + look, moving=True)
    name = keys.backup_name(1, Lsn((5 << 20) + 40), 1 << 20)
    assert set(watch.replaced) == {wal, name}
    assert watch.replacements == 2
    stored.store.put(wal, b"z")
    for look in range(20):
        watch.look(40.0 + look, moving=True)
    assert set(watch.replaced) == {wal, name}
    assert watch.replacements == 3, "the same once more"
    watch.forget_replaced(name, lambda key: key != wal)
    assert watch.replaced == (wal,)
    watch.forget_replaced(name, lambda key: key == wal)
    assert watch.replaced == ()


@pytest.mark.parametrize("looks", [1, 20])
def test_wal_that_comes_back_as_another_one_is_named(stored: MadeRepository, looks: int) -> None:
    """However many looks had not seen it; what comes back as it was is no other."""
    watch = stored.watched()
    for look in range(20):
        watch.look(float(look), moving=True)
    changed, same = (keys.wal(str(segment(number)), "zst") for number in (700, 701))
    version = stored.store._objects[same]
    stored.store.delete([changed, same])
    for look in range(looks):
        watch.look(20.0 + look, moving=True)
    stored.store.put(changed, b"y")
    stored.store._objects[same] = version
    for look in range(20):
        watch.look(60.0 + look, moving=True)
    assert (watch.replaced, watch.replacements) == ((changed,), 1)


@pytest.mark.parametrize("looks", [1, 20])
def test_wal_that_we_ship_again_is_not_called_replaced(stored: MadeRepository, looks: int) -> None:
    """Encrypted, it looks different; what somebody puts in its place after that is told."""
    stats = UploadStats()
    watch = stored.watched(stats.has_put)
    for look in range(20):
        watch.look(float(look), moving=True)
    name = str(segment(700))
    stored.store.delete([keys.wal(name, "zst")])
    for look in range(looks):
        watch.look(20.0 + look, moving=True)
    stored.store.put(keys.wal(name, "zst"), b"y")
    stats.stored(seconds=0.1, stored_bytes=1, segment=name)
    for look in range(20):
        watch.look(60.0 + look, moving=True)
    assert watch.replaced == ()
    stored.store.put(keys.wal(name, "zst"), b"z")
    for look in range(20):
        watch.look(80.0 + look, moving=True)
    assert watch.replaced == (keys.wal(name, "zst"),)


def test_a_replaced_backup_is_named_until_it_is_gone(stored: MadeRepository) -> None:
    watch = stored.watched()
    part = next(info.key for info in stored.store.list(keys.BASEBACKUPS) if "part_002" in info.key)
    stored.store.put(part, bytes(len(stored.store.get(part))))
    name = keys.backup_name(1, Lsn((5 << 20) + 40), 1 << 20)
    watch.look(1.0, moving=True)
    assert watch.replaced == (name,)
    gone = take_away(stored, name)
    watch.look(2.0, moving=True)
    assert watch.replaced == ()
    put_back(stored, gone)
    watch.look(3.0, moving=True)
    assert watch.replaced == (name,), "it came back as what it was replaced by"


def test_a_backup_that_comes_back_as_another_one_is_named(stored: MadeRepository) -> None:
    watch = stored.watched()
    name = keys.backup_name(1, Lsn((5 << 20) + 40), 1 << 20)
    gone = take_away(stored, name)
    watch.look(1.0, moving=True)
    part = next(key for key in gone if "part_002" in key)
    put_back(stored, gone | {part: bytes(len(gone[part]))})
    watch.look(2.0, moving=True)
    assert watch.replaced == (name,)


def take_away(made: MadeRepository, name: str) -> dict[str, bytes]:
    found = [keys.sentinel(name), *(info.key for info in made.store.list(keys.backup_folder(name)))]
    gone = {key: made.store.get(key) for key in found}
    made.store.delete(found)
    return gone


def put_back(made: MadeRepository, gone: dict[str, bytes]) -> None:
    for key, data in gone.items():
        made.store.put(key, data)


def test_of_very_many_replaced_objects_none_is_forgotten(stored: MadeRepository) -> None:
    watch = stored.watched()
    for look in range(20):
        watch.look(float(look), moving=True)
    for number in range(2, 1150):
        stored.store.put(keys.wal(str(segment(number)), "zst"), b"y")
    for look in range(40):
        watch.look(20.0 + look, moving=True)
    assert len(watch.replaced) > 1000
    for name in (keys.backup_name(1, Lsn((number << 20) + 40), 1 << 20) for number in (5, 600)):
        watch.forget_replaced(name, lambda _: True)
    assert watch.replaced == ("other WAL",)


def test_what_comes_back_as_it_was_is_not_called_replaced(stored: MadeRepository) -> None:
    watch = stored.watched()
    part = next(info.key for info in stored.store.list(keys.BASEBACKUPS) if "part_002" in info.key)
    version = stored.store._objects[part]
    stored.store.delete([part])
    catalog, _ = watch.look(1.0, moving=True)
    assert any("part" in backup.problem for backup in catalog.backups)
    stored.store._objects[part] = version
    for look in range(2, 6):
        catalog, _ = watch.look(float(look), moving=True)
    assert not any(backup.problem for backup in catalog.backups)
    assert watch.replaced == ()


def test_only_wal_that_is_read_with_a_backup_is_proven_by_it(stored: MadeRepository) -> None:
    """A branch from before the backup sorts after its WAL, and WAL behind a hole as well; neither is read."""
    stored.put(keys.wal("00000002.history", "zst"), f"1\t{Lsn(500 << 20)}\tx\n".encode())
    stored.put(keys.wal("00000003.history", "zst"), f"1\t{Lsn(700 << 20)}\tx\n".encode())
    for number in range(500, 510):
        stored.store.put(keys.wal(str(segment(number, 2)), "zst"), b"x")
    for number in range(700, 710):
        stored.store.put(keys.wal(str(segment(number, 3)), "zst"), b"x")
    stored.store.delete([keys.wal(str(segment(1000)), "zst")])
    catalog = read_catalog(stored.store, stored.codec)
    newest = catalog.backup(keys.backup_name(1, Lsn((600 << 20) + 40), 1 << 20))
    assert newest is not None
    is_read = wal_read_with(catalog, newest)
    names = [segment(599), segment(600), segment(999), segment(1001), segment(505, 2), segment(699, 3), segment(709, 3)]
    read = [name for name in names if is_read(keys.wal(str(name), "zst"))]
    assert read == [segment(600), segment(999), segment(709, 3)]
    histories = [timeline for timeline in (2, 3) if is_read(keys.wal(f"{timeline:08X}.history", "zst"))]
    assert histories == [3]
    assert not is_read(keys.wal("stranger", "zst"))
