"""The note of the last verifications, one small object: what they found, which says what may be relied on.

It is replaced only as it was read, for two verifications may end at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pgbackup.core.health_facts import LastRun
from pgbackup.errors import CorruptObject, ObjectMissing
from pgbackup.repository import keys
from pgbackup.repository.json_object import parse_object
from pgbackup.storage.base import ObjectStore

FORMAT = 1
_UNREADABLE = (CorruptObject, ValueError, KeyError, TypeError, OverflowError, AttributeError)
_log = logging.getLogger(__name__)


def read_verification(store: ObjectStore) -> LastRun | None:
    """What is recorded; None when nothing is, or it cannot be read (which is logged). Raises what the store raises."""
    return read_with_etag(store)[0]


def must_read_verification(store: ObjectStore) -> LastRun | None:
    """What is recorded; None when nothing is. For whom that makes a difference: raises CorruptObject where it is
    written and cannot be read, and what the store raises."""
    key = keys.VERIFICATION
    try:
        return _decode(key, store.get(key))
    except ObjectMissing:
        return None
    except _UNREADABLE as exc:
        problem = f"which backups were found damaged is not known: {exc}"
        raise CorruptObject(key, problem, hint="`pgbackup verify --record` writes it anew.") from exc


def write_verification(store: ObjectStore, run: LastRun) -> None:
    """Record a run, whatever is recorded. Raises what the store raises."""
    store.put(keys.VERIFICATION, _encode(run))


def read_with_etag(store: ObjectStore) -> tuple[LastRun | None, str]:
    """The same, and the etag of what is there; empty when nothing is."""
    key = keys.VERIFICATION
    try:
        data, etag = store.get_with_etag(key)
    except ObjectMissing:
        return None, ""
    try:
        return _decode(key, data), etag
    except _UNREADABLE as exc:
        _log.warning("object %s is damaged: %s", key, exc)
        return None, etag


def replace_verification(store: ObjectStore, run: LastRun, etag: str) -> bool:
    """Record a run in place of what was read with ``etag``. False when that is not there any more."""
    data = _encode(run)
    return store.replace(keys.VERIFICATION, data, etag) if etag else store.put_if_absent(keys.VERIFICATION, data)


def _decode(key: str, data: bytes) -> LastRun:
    fields = parse_object(key, data)
    if fields["format"] != FORMAT:
        raise ValueError(f"its format is {str(fields['format'])[:20]!r}, of another version of pgbackup")
    return LastRun(
        finished=_moment(fields["finished"]),
        ok=fields["ok"] is True,
        summary=str(fields.get("summary", ""))[:500],
        damaged=_damaged(fields.get("damaged", {})),
        began=_moment(fields["began"]) if fields.get("began") is not None else None,
        whole={str(name)[:500]: _moment(text) for name, text in fields.get("whole", {}).items()},
    )


def _encode(run: LastRun) -> bytes:
    document = {
        "format": FORMAT,
        "finished": run.finished.isoformat(),
        "ok": run.ok,
        "summary": run.summary,
        "damaged": {name: found.isoformat() if found is not None else None for name, found in run.damaged.items()},
        "began": run.began.isoformat() if run.began is not None else None,
        "whole": {name: began.isoformat() for name, began in run.whole.items()},
    }
    return json.dumps(document).encode()


def _damaged(names: Mapping[str, str | None] | Sequence[str]) -> dict[str, datetime | None]:
    """Only names, without their moments, are what the first notes held."""
    if isinstance(names, str):
        raise TypeError("its damaged backups are no list")
    found = names if isinstance(names, Mapping) else dict.fromkeys(names)
    return {str(name)[:500]: _moment(text) if text is not None else None for name, text in found.items()}


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC)
