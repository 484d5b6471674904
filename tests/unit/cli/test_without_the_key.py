"""An encrypted repository, and somebody who comes without its key: told that, not that everything is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgbackup.cli import main as cli
from pgbackup.core.lsn import MIB, Lsn
from pgbackup.repository import keys
from pgbackup.repository.codec import Codec, Compression
from pgbackup.repository.key_check import check_key, key_problem
from pgbackup.storage.file import FileStore
from tests.made_backup import MadeRepository
from tests.made_wal import MadeWal

KEY = bytes(range(32))
START, STOP = Lsn(3 * MIB + 40), Lsn(4 * MIB + 400)
NO_KEY, OTHER_KEY = "is encrypted, and no encryption key is configured", "is not the one that the repository was begun"
ZSTD = Compression("zstd", 1)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeRepository:
    """On a second timeline, whose history file is encrypted as well."""
    monkeypatch.setattr("pgbackup.logs.configure", lambda **options: None)
    monkeypatch.setenv("PGBACKUP_REPOSITORY", f"file://{tmp_path}/repository")
    monkeypatch.setenv("PGBACKUP_ENCRYPTION_KEY_TRANSFORM", "hex")
    made = MadeRepository(store=FileStore(tmp_path / "repository"), codec=Codec(ZSTD, KEY))
    check_key(made.store, made.codec)
    made.claim()
    made.history(2, (1, Lsn(3 * MIB)))
    made.backup(START, STOP, timeline=2)
    wal = MadeWal(3, timeline=2)
    wal.fill_to(2.5)
    made.wal(wal)
    return made


@pytest.mark.parametrize(("key", "said"), [("", NO_KEY), ("77" * 32, OTHER_KEY)])
def test_every_reader_says_it(
    made: MadeRepository,
    key: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if key:
        monkeypatch.setenv("PGBACKUP_ENCRYPTION_KEY", key)
    for command, code in ((["list"], 0), (["verify"], 1), (["restore", "--target", str(tmp_path / "new")], 2)):
        assert cli.run(command) == code
        assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_damaged_word_of_the_key_stops_no_reader(
    made: MadeRepository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made.store.put(keys.KEY_CHECK, b"?")
    monkeypatch.setenv("PGBACKUP_ENCRYPTION_KEY", KEY.hex())
    assert cli.run(["verify"]) == 0
    assert cli.run(["list"]) == 0
    assert "any moment from" in capsys.readouterr().out


def test_where_there_is_nothing_to_say(made: MadeRepository) -> None:
    assert key_problem(made.store, made.codec) == ""
    made.store.delete([keys.KEY_CHECK])
    assert key_problem(made.store, Codec(ZSTD)) == ""
    check_key(made.store, Codec(ZSTD))
    assert key_problem(made.store, made.codec) == key_problem(made.store, Codec(ZSTD)) == ""
