"""Documents of a repository that somebody else wrote: no command lets them speak to the terminal, --json is exact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pgbackup.cli import main as cli
from pgbackup.core.lsn import MIB, Lsn
from pgbackup.repository import keys
from pgbackup.storage.file import FileStore
from tests.made_backup import MadeRepository
from tests.made_wal import MadeWal

EVIL = "\x1b]0;title\x07\x9b2J\r\npgbackup: all is well\n\u202e"
ESCAPED = "\\x1b]0;title\\x07\\x9b2J\\r\\npgbackup: all is well\\n\\u202e"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeRepository:
    """Two backups of WAL-G: one with a tablespace, one that is a delta of one that is not there; both with a label."""
    monkeypatch.setenv("PGBACKUP_REPOSITORY", f"file://{tmp_path}/repository")
    monkeypatch.setattr("pgbackup.logs.configure", lambda **options: None)
    made = MadeRepository(store=FileStore(tmp_path / "repository"))
    made.claim()
    made.backup(Lsn(3 * MIB + 40), Lsn(4 * MIB + 400))
    delta = made.backup(Lsn(5 * MIB + 40), Lsn(6 * MIB + 400), minutes=60)
    for name in ("base_000000010000000000000003", delta):
        seal = json.loads(made.store.get(keys.sentinel(name)))
        seal |= {"UserData": {"label": f"label {EVIL}"}, "Hostname": f"host {EVIL}", "DataDir": f"/data {EVIL}"}
        seal["Spec"]["16384"]["loc"] = f"/there {EVIL}"
        if name == delta:
            seal["DeltaFrom"] = f"base {EVIL}"
        made.store.put(keys.sentinel(name), json.dumps(seal).encode())
        made.store.delete([keys.metadata(name)])
    wal = MadeWal(3)
    wal.fill_to(6)
    made.wal(wal)
    return made


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("list", [f"label {ESCAPED}", f"it is a delta of base {ESCAPED}"]),
        ("verify", [f"it is a delta of base {ESCAPED}"]),
        ("verify --backup base_000000010000000000000003", []),
        ("restore --plan --target {target}", [f"16384 to /there {ESCAPED}", f"it is a delta of base {ESCAPED}"]),
        (
            "restore --plan --target {target} --backup base_000000010000000000000005",
            ["\\x9b2J\n  pgbackup: all is well"],
        ),
        ("expire", [f"it is a delta of base {ESCAPED}"]),
        ("backup-list --detail", [f"host {ESCAPED}", f"/data {ESCAPED}"]),
        ("backup-list --pretty --detail", [f"host {ESCAPED}"]),
    ],
)
def test_no_document_speaks_to_the_terminal(
    repository: MadeRepository, command: str, shown: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cli.run(command.format(target=tmp_path / "target").split())  # an error's own lines are indented
    said = capsys.readouterr()
    text = said.out + said.err
    assert text.replace("\n", "").isprintable()
    assert not any(line.startswith("pgbackup: all") for line in text.splitlines())
    for words in shown:
        assert words in text


@pytest.mark.parametrize("command", ["list --json", "backup-list --json --detail", "backup-list --json --pretty"])
def test_documents_are_exact_and_printable_all_the_same(
    repository: MadeRepository, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(command.split()) == 0
    text = capsys.readouterr().out
    assert text.replace("\n", "").isprintable()
    document = json.loads(text)
    if command == "list --json":
        assert [each["label"] for each in document["backups"]] == [f"label {EVIL}"] * 2
        assert document["backups"][0]["host"] == f"host {EVIL}"
    elif "--detail" in command:
        assert {each["hostname"] for each in document} == {f"host {EVIL}"}


def test_a_key_does_not_speak_either(repository: MadeRepository, capsys: pytest.CaptureFixture[str]) -> None:
    """A backup's name is part of a key; an error quotes it, on stderr as well as in its document."""
    name = "base_\x1b[2J\u202e"
    repository.store.put(keys.sentinel(name), b"{}")
    for command in (["list"], ["verify", "--backup", name], ["verify", "--backup", name, "--json"], ["expire"]):
        cli.run(command)
        said = capsys.readouterr()
        text = said.out + said.err
        assert text.replace("\n", "").isprintable(), command
        assert "base_\\x1b[2J\\u202e" in text or "base_\\u001b[2J\\u202e" in text
