"""The metrics are what Prometheus expects, and leave out what nobody knows."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from pgbackup.core.status import StatusSnapshot
from pgbackup.web.metrics import CONTENT_TYPE, Metrics
from tests.made_status import FULL, NOTHING_KNOWN, NOW

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_UNITS = {"seconds", "bytes"}
_NOT_BASE_UNITS = {"ms", "milliseconds", "minutes", "hours", "days", "kb", "mb", "gb", "mib", "kib", "percent", "bits"}
_RESERVED_ENDS = ("_count", "_sum", "_bucket", "_created")


def render(snapshot: StatusSnapshot | None, age_seconds: float = 0) -> str:
    now = NOW + timedelta(seconds=age_seconds)
    return Metrics(lambda: snapshot, lambda: now, version="1.2.3").render().decode()


def parse(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(text: str, name: str, **labels: str) -> float | None:
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return found[0] if found else None


@pytest.mark.parametrize("snapshot", [FULL, NOTHING_KNOWN, None], ids=["full", "nothing known", "none"])
def test_names_types_and_help_follow_the_conventions(snapshot: StatusSnapshot | None) -> None:
    text = render(snapshot)
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helped = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    assert typed.keys() == helped.keys()
    assert len(typed) == len(re.findall(r"^# TYPE ", text, re.MULTILINE)), "one family each"
    for name, kind in typed.items():
        assert name.startswith(("pgbackup_", "process_")), name
        assert _NAME.fullmatch(name), name
        assert name.endswith("_total") == (kind == "counter"), f"{name} is a {kind}"
        assert not name.endswith(_RESERVED_ENDS), name
        words = name.removesuffix("_total").split("_")
        assert not _NOT_BASE_UNITS & set(words), name
        assert sum(word in _UNITS for word in words) <= 1, f"{name} mixes units"
        assert not _UNITS & set(words[:-1]), f"{name}: the unit is the last word"
        assert helped[name].endswith("."), name


def test_every_sample_belongs_to_a_typed_family() -> None:
    families = parse(render(FULL))
    assert not [name for name, family in families.items() if family.type in ("unknown", "untyped")]
    assert all(sample.timestamp is None for family in families.values() for sample in family.samples)


def test_known_values() -> None:
    text = render(FULL)
    assert value(text, "pgbackup_up") == 1
    assert value(text, "pgbackup_build_info", version="1.2.3") == 1
    assert value(text, "pgbackup_verdict", verdict="ok") == 1
    assert value(text, "pgbackup_verdict", verdict="unknown") == 0
    assert value(text, "pgbackup_wal_received_lsn_bytes") == 0x5000200
    assert value(text, "pgbackup_wal_segments_uploaded_total") == 4
    assert value(text, "pgbackup_wal_upload_errors_total", kind="unavailable") == 7
    assert value(text, "pgbackup_last_backup_timestamp_seconds") == (NOW - timedelta(hours=1)).timestamp()
    assert value(text, "pgbackup_alerts_active", severity="critical") == 0
    assert value(text, "pgbackup_findings", kind="slot", severity="warning") == 1
    assert value(text, "pgbackup_store_errors_total", kind="denied") == 1
    assert value(text, "pgbackup_last_expiry_ok") == 0
    assert value(text, "pgbackup_worker_crashes_total", worker="wal") == 2
    assert value(text, "process_resident_memory_bytes")


def test_the_histogram_is_cumulative() -> None:
    text = render(FULL)
    assert value(text, "pgbackup_wal_upload_seconds_bucket", le="0.025") == 1
    assert value(text, "pgbackup_wal_upload_seconds_bucket", le="60.0") == 5
    assert value(text, "pgbackup_wal_upload_seconds_bucket", le="+Inf") == 6
    assert value(text, "pgbackup_wal_upload_seconds_count") == 6
    assert value(text, "pgbackup_wal_upload_seconds_sum") == 70.5


ALWAYS = {"pgbackup_build_info", "pgbackup_up", "pgbackup_verdict", "pgbackup_status_timestamp_seconds"}


def own(text: str) -> set[str]:
    return {name for name in parse(text) if name.startswith("pgbackup_")}


def test_what_nobody_knows_is_absent() -> None:
    assert own(render(NOTHING_KNOWN)) == ALWAYS | {"pgbackup_findings"}
    assert value(render(NOTHING_KNOWN), "pgbackup_up") == 0


def test_a_stale_snapshot_and_none_at_all_are_down() -> None:
    stale, none = render(FULL, age_seconds=181), render(None)
    assert (own(stale), own(none)) == (ALWAYS, ALWAYS - {"pgbackup_status_timestamp_seconds"})
    for text in (stale, none):
        assert value(text, "pgbackup_up") == 0
        assert value(text, "pgbackup_verdict", verdict="unknown") == 1
        assert value(text, "pgbackup_verdict", verdict="ok") == 0


def test_each_has_a_registry_of_its_own() -> None:
    from prometheus_client import REGISTRY

    before = set(REGISTRY._names_to_collectors)
    assert render(FULL) != render(None)
    assert set(REGISTRY._names_to_collectors) == before
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
