"""The ledger of gaps below ``pgbackup_005/gaps/``: an object for each gap, another one when it was acknowledged.

Both are put if absent and never change. An entry that cannot be read raises: a ledger that is damaged is a finding, it
does not say that there are no gaps.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

from pgbackup.core.known_gaps import KnownGap
from pgbackup.core.lsn import Lsn
from pgbackup.errors import CorruptObject
from pgbackup.repository import keys
from pgbackup.repository.json_object import JsonObject
from pgbackup.storage.base import ObjectStore

_ACKNOWLEDGED = "-acknowledged.json"
_MOST_TEXT = 500


def read_gaps(store: ObjectStore) -> tuple[KnownGap, ...]:
    """Every gap, in order of timeline and position. Raises CorruptObject and what the store raises."""
    names = [info.key for info in store.list(keys.GAPS)]
    acknowledged = {key.removesuffix(_ACKNOWLEDGED) for key in names if key.endswith(_ACKNOWLEDGED)}
    gaps = []
    for key in names:
        if key.endswith(_ACKNOWLEDGED):
            continue
        gap = _parse(JsonObject.parse(key, store.get(key)), key)
        stem = key.removesuffix(".json")
        gaps.append(_with_acknowledgement(store, gap, stem) if stem in acknowledged else gap)
    return tuple(sorted(gaps, key=lambda gap: (gap.timeline, gap.start)))


def record_gap(store: ObjectStore, gap: KnownGap) -> bool:
    """Record a gap; False when one with that beginning is recorded already (it may have another end)."""
    document = {
        "format": 1,
        "timeline": gap.timeline,
        "start": str(gap.start),
        "end": str(gap.end),
        "found": gap.found.isoformat(),
        "reason": gap.reason[:_MOST_TEXT],
    }
    return store.put_if_absent(keys.gap(gap.timeline, gap.start, gap.end), json.dumps(document).encode())


def acknowledge_gap(store: ObjectStore, gap: KnownGap, *, moment: datetime, by: str, comment: str) -> bool:
    """Note that people know of a gap; False when it was noted before."""
    document = {
        "format": 1, "time": moment.isoformat(), "by": by[:_MOST_TEXT], "comment": comment[:_MOST_TEXT],
    }  # fmt: skip
    key = keys.gap(gap.timeline, gap.start, gap.end).removesuffix(".json") + _ACKNOWLEDGED
    return store.put_if_absent(key, json.dumps(document).encode())


def _parse(fields: JsonObject, key: str) -> KnownGap:
    found, timeline = fields.moment("found"), fields.integer("timeline")
    try:
        start, end = Lsn.parse(fields.text("start")), Lsn.parse(fields.text("end"))
    except ValueError as exc:
        raise CorruptObject(key, f"not a gap ({exc})") from exc
    if found is None or timeline is None or end <= start:
        raise CorruptObject(key, "not a gap")
    return KnownGap(timeline, start, end, found, fields.text("reason")[:_MOST_TEXT])


def _with_acknowledgement(store: ObjectStore, gap: KnownGap, stem: str) -> KnownGap:
    key = stem + _ACKNOWLEDGED
    fields = JsonObject.parse(key, store.get(key))
    moment = fields.moment("time")
    if moment is None:
        raise CorruptObject(key, "not an acknowledgement")
    return replace(
        gap,
        acknowledged=moment,
        acknowledged_by=fields.text("by")[:_MOST_TEXT],
        comment=fields.text("comment")[:_MOST_TEXT],
    )
