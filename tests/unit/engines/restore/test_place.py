"""What a restore may empty: what is free, and what an interrupted one left; never what another one has finished."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pgbackup.core.backup import CONTROL_FILE
from pgbackup.engines.restore.place import CONTROL_TEMPORARY, MARKER, Claim, RestorePlace
from pgbackup.errors import RestoreError


def _place(folder: Path, name: str = "data") -> RestorePlace:
    return RestorePlace(folder / name, {16384: folder / "space"})


def _fill(claim: Claim) -> None:
    """What a restore has written when only the control file's name is missing."""
    data, space = claim.place.all_directories
    (data / "global").mkdir()
    (data / CONTROL_TEMPORARY).write_bytes(b"control")
    (space / "PG_18").mkdir()
    (space / "PG_18" / "row").write_bytes(b"precious")


def _assert_whole(found: RestorePlace) -> None:
    data, space = found.all_directories
    assert (data / CONTROL_FILE).read_bytes() == b"control"
    assert (space / "PG_18" / "row").read_bytes() == b"precious"
    assert not (data / MARKER).exists()


@pytest.mark.parametrize("second", ["data", "other"], ids=["the same directory", "only the same tablespace"])
def test_what_another_restore_has_finished_meanwhile_is_not_emptied(tmp_path: Path, second: str) -> None:
    first = _place(tmp_path)
    claim = first.claim("base")
    late = _place(tmp_path, second)
    late.check()  # left-overs, as far as one can see
    _fill(claim)
    claim.release()
    claim.close()
    with pytest.raises(RestoreError, match="not empty"):
        late.claim("base")
    _assert_whole(first)
    assert not (tmp_path / "space" / MARKER).exists()


def test_a_marker_that_was_removed_while_we_waited_for_it_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _place(tmp_path)
    claim = first.claim("base")
    _fill(claim)
    real = os.open

    def slow(path: Path, *arguments: int) -> int:
        descriptor = real(path, *arguments)
        if Path(path).name == MARKER and claim.descriptors:
            claim.release()
            claim.close()
        return descriptor

    monkeypatch.setattr(os, "open", slow)
    with pytest.raises(RestoreError, match="another restore"):
        _place(tmp_path).claim("base")
    _assert_whole(first)


def test_a_tablespace_of_a_complete_cluster_is_not_emptied_though_its_marker_stayed(tmp_path: Path) -> None:
    first = _place(tmp_path)
    claim = first.claim("base")
    _fill(claim)
    marker = (tmp_path / "space" / MARKER).read_bytes()
    claim.release()
    claim.close()
    (tmp_path / "space" / MARKER).write_bytes(marker)  # killed before it went
    with pytest.raises(RestoreError, match="not empty"):
        _place(tmp_path, "other").check()
    _assert_whole(first)


@pytest.mark.parametrize("marker", ["", "{", "[]", json.dumps({"format": 1, "backup": "base"})])
def test_a_marker_of_any_age_in_what_was_left(tmp_path: Path, marker: str) -> None:
    found = _place(tmp_path)
    claim = found.claim("base")
    _fill(claim)
    claim.close()
    (tmp_path / "data" / MARKER).write_text(marker)
    if marker:
        (tmp_path / "space" / MARKER).write_text(marker)
    again = _place(tmp_path)
    again.check()
    with_marker = again.claim("base")
    assert [path.name for path in (tmp_path / "space").iterdir()] == [MARKER]
    with_marker.close()


def test_an_empty_marker_alone_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / MARKER).touch()
    found = RestorePlace(tmp_path / "data")
    found.check()
    found.claim("base").close()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / MARKER).touch()
    (tmp_path / "other" / "precious").touch()
    with pytest.raises(RestoreError, match="not empty"):
        RestorePlace(tmp_path / "other").check()


def test_what_is_missing_above_can_be_passed_by_the_server(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        claim = RestorePlace(tmp_path / "a" / "b" / "data").claim("base")
        claim.close()
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b", "a/b/data")]
    assert modes == [0o755, 0o755, 0o700]
    assert len({(tmp_path / name).stat().st_uid for name in (".", "a", "a/b", "a/b/data")}) == 1
