"""The verdict: a whole picture is green, and each thing that is wrong or unknown makes it warn or critical."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgbackup.core.backup import Backup
from pgbackup.core.findings import Finding, Severity
from pgbackup.core.health_facts import HealthFacts, JobView, LastRun, RepositoryView, StreamView
from pgbackup.core.known_gaps import KnownGap
from pgbackup.core.removed_wal import RemovedWal
from pgbackup.core.retention_policy import RetentionPolicy
from pgbackup.core.schedule_spec import ScheduleSpec
from pgbackup.engines.verify.verify import choose_backup
from tests.made_catalog import at, backup, catalog, minutes
from tests.made_health import LIMITS, NOW, green, green_catalog, judged, keys, server


def with_catalog(made, **more) -> HealthFacts:
    return green(repository=RepositoryView(made, NOW, clock=NOW, **more))


def test_a_whole_picture_is_green() -> None:
    health = judged(green())
    assert (health.verdict, keys(health)) == ("ok", [])
    assert health.rpo == timedelta(0)
    assert health.durable == at(21.5)
    assert health.last_backup_finished == minutes(60)
    assert health.next_due == minutes(120)
    assert health.window is not None
    assert (health.window.earliest, health.window.latest) == (minutes(0), minutes(0)), "there is no mark"
    assert (health.window.start, health.window.end) == (at(4.5), at(21.5))


SPOILED = {
    "repository:unreachable": green(repository=None, repository_problem="connection refused"),
    "server:unreachable": green(server=None, server_problem="connection refused"),
    "backup:none": with_catalog(catalog([], {1: range(3, 21)})),
    "repository:other-cluster": with_catalog(replace(green_catalog(), system_identifier=7)),
    "lease:other-writer": with_catalog(green_catalog(), other_writer="elsewhere:1", other_writer_has_written=True),
    "repository:bookkeeping": with_catalog(green_catalog(), missing_bookkeeping=("pgbackup_005/cluster.json",)),
    "wal:server-behind-repository": green(server=server(position=at(20), position_after=at(20.2))),
    "backup:other-branch": green(server=server(timeline=2)),
    "server:standby-silent": green(server=server(in_recovery=True, silent_seconds=math.inf)),
    "stream:stopped": green(stream=StreamView(streaming=False, problem="other bytes", permanent=True)),
    "clock:server": green(server=server(clock=NOW + timedelta(minutes=20))),
    "clock:store": green(repository=RepositoryView(green_catalog(), NOW, clock=NOW - timedelta(minutes=20))),
    "repository:unreadable": with_catalog(green_catalog(), unreadable="wal_005/x.zst: access denied"),
    "repository:replaced": with_catalog(green_catalog(), replaced=("wal_005/x.zst",)),
    "verify:failed": with_catalog(green_catalog(), verification=LastRun(NOW, ok=False, summary="1 object damaged")),
    "verify:unreadable": with_catalog(green_catalog(), verification_unreadable="object x is damaged: not JSON"),
}


def test_what_verifications_found_of_no_backup_is_nothing_to_tell() -> None:
    nothing = with_catalog(catalog([], {}), verification_unreadable="object x is damaged: not JSON")
    assert "verify:unreadable" not in keys(judged(nothing)), "no verification could write it anew"


@pytest.mark.parametrize("key", SPOILED)
def test_what_is_wrong_or_unknown_is_critical(key: str) -> None:
    health = judged(SPOILED[key])
    assert health.verdict == "critical"
    assert key in keys(health)
    assert all(f.summary and f.hint for f in health.findings)


def test_a_writer_that_may_have_died_lately_is_no_cause_for_alarm_yet() -> None:
    health = judged(with_catalog(green_catalog(), other_writer="elsewhere:1"))
    assert (health.verdict, keys(health)) == ("warning", ["lease:other-writer"])


def test_missing_wal_in_the_middle_is_a_hole() -> None:
    made = catalog([backup(10.1, 11.5, minute=60)], {1: [*range(10, 15), *range(16, 21)]}, {(1, 21): 0.5})
    health = judged(with_catalog(made))
    assert "wal:hole:1/0/F00000" in keys(health)
    assert health.durable == at(15)


def test_wal_that_was_stored_and_is_gone_is_critical_at_once() -> None:
    """Not only when it has grown old: it was confirmed, so nothing but the server's goodwill keeps it."""
    stored = StreamView(streaming=True, confirmed=at(21.5), timeline=1, stored=at(21.5))
    assert judged(green(stream=stored)).verdict == "ok"
    made = catalog([backup(3.2, 4.5), backup(10.1, 11.5, minute=60)], {1: range(3, 21)}, {(1, 21): 0.2})
    gone = replace(with_catalog(made), stream=stored, wal_age=timedelta(seconds=5))
    assert keys(judged(gone)) == ["wal:vanished"]
    assert keys(judged(replace(gone, stream=replace(stored, timeline=2)))) == []
    assert keys(judged(replace(gone, stream=replace(stored, stored=at(21.2))))) == []
    hole = catalog([backup(10.1, 11.5, minute=60)], {1: [*range(10, 15), *range(16, 21)]}, {(1, 21): 0.5})
    assert "wal:vanished" not in keys(judged(replace(gone, repository=with_catalog(hole).repository)))


def test_missing_wal_of_a_backup_makes_the_newest_not_restorable() -> None:
    made = catalog([backup(3.2, 4.5), backup(10.1, 11.5, minute=60)], {1: [*range(3, 11), *range(12, 21)]})
    assert {"backup:newest-not-restorable", "backup:overdue"} & set(keys(judged(with_catalog(made))))


def test_an_emptied_bucket_is_critical() -> None:
    health = judged(with_catalog(catalog([], {})))
    assert health.verdict == "critical"
    assert health.window is None


@pytest.mark.parametrize(
    ("age", "verdict"),
    [(timedelta(seconds=20), "ok"), (timedelta(minutes=6), "warning"), (timedelta(hours=1), "critical")],
)
def test_wal_that_is_not_durable_counts_by_its_age(age: timedelta, verdict: str) -> None:
    behind = server(position=at(22), position_after=at(22))
    health = judged(green(server=behind, wal_age=age))
    assert health.verdict == verdict
    assert health.rpo == age


def test_wal_that_is_missing_for_an_unknown_time_is_not_green() -> None:
    behind = server(position=at(22), position_after=at(22))
    health = judged(green(server=behind, wal_age=None))
    assert keys(health) == ["wal:not-durable"]
    assert health.rpo is None


def test_a_first_backup_that_runs_is_a_warning() -> None:
    made = with_catalog(catalog([], {1: range(3, 21)}))
    assert judged(replace(made, backups=JobView(running=True))).verdict == "warning"
    assert judged(replace(made, backups=JobView(running=False))).verdict == "critical"


@pytest.mark.parametrize(("minute", "verdict"), [(129, "ok"), (131, "warning"), (189, "warning"), (191, "critical")])
def test_an_overdue_backup_warns_and_after_two_it_is_critical(minute: float, verdict: str) -> None:
    now = minutes(minute)
    facts = green(server=server(looked=now, clock=now), repository=RepositoryView(green_catalog(), now, clock=now))
    assert judged(facts, now=now).verdict == verdict


@pytest.mark.parametrize(("failures", "verdict"), [(0, "ok"), (1, "warning"), (3, "critical")])
def test_failing_backups(failures: int, verdict: str) -> None:
    assert judged(green(backups=JobView(failures=failures, error="denied"))).verdict == verdict


def test_a_stream_that_is_interrupted_for_a_moment_is_no_finding() -> None:
    def interrupted(seconds: float) -> HealthFacts:
        return green(stream=StreamView(False, "connection lost", since=NOW - timedelta(seconds=seconds)))

    assert judged(interrupted(20)).verdict == "ok"
    assert keys(judged(interrupted(90))) == ["stream:interrupted"]


def test_a_verification_that_never_came_is_overdue() -> None:
    limits = replace(LIMITS, verify_schedule=ScheduleSpec.parse("every 1 hour"), verify_grace=timedelta(minutes=5))
    assert keys(judged(green(), limits=limits)) == ["verify:overdue"]
    done = with_catalog(green_catalog(), verification=LastRun(minutes(50), ok=True))
    assert judged(done, limits=limits).verdict == "ok"
    by_a_wrong_clock = with_catalog(green_catalog(), verification=LastRun(NOW + timedelta(days=365), ok=True))
    assert keys(judged(by_a_wrong_clock, limits=limits)) == ["verify:overdue"], "not green for a year"


def test_backups_that_are_gone_or_were_found_damaged_are_no_emergency_and_not_green() -> None:
    made = green_catalog()
    gone = judged(with_catalog(made, vanished=("base_1", "base_2", "base_3", "base_4")))
    assert (gone.verdict, keys(gone)) == ("warning", ["backup:vanished"])
    assert "base_3 and 1 more" in gone.findings[0].summary
    older, newest = (backup.name for backup in made.backups)
    found = LastRun(NOW, ok=True, damaged=dict.fromkeys([older, "base_of_before"]))
    damaged = judged(with_catalog(made, verification=found))
    assert (damaged.verdict, keys(damaged)) == ("warning", ["verify:older-damaged"])
    assert "base_of_before" not in damaged.findings[0].summary, "it is gone"
    assert judged(with_catalog(made, verification=replace(found, damaged={}))).verdict == "ok"
    no_newer = judged(with_catalog(made, verification=replace(found, damaged=dict.fromkeys([newest, older]))))
    assert (no_newer.verdict, keys(no_newer)) == ("critical", ["verify:newest-damaged", "verify:older-damaged"])
    failed = LastRun(NOW, ok=False, summary="1 object damaged", damaged=dict.fromkeys([newest]))
    assert keys(judged(with_catalog(made, verification=failed))) == ["verify:failed"]


def test_wal_left_behind_is_told_until_the_new_timeline_has_a_backup() -> None:
    fork = [(2, f"1\t{at(20)}\tno reason\n")]
    on_two = server(timeline=2, position=at(21), position_after=at(21))
    segments = {1: range(3, 22), 2: range(20, 21)}
    old = catalog([backup(10.1, 11.5, minute=60)], segments, forks=fork)
    assert "branch:left-behind:1" in keys(judged(replace(with_catalog(old), server=on_two)))
    both = catalog([backup(10.1, 11.5, minute=0), backup(20.2, 20.5, timeline=2, minute=65)], segments, forks=fork)
    assert judged(replace(with_catalog(both), server=on_two)).verdict == "ok"


@pytest.mark.parametrize(
    ("reason", "severity"),
    [
        ("no recovery target specified", Severity.CRITICAL),
        ("", Severity.CRITICAL),
        ("before 2026-01-31 12:00:00.5+00", Severity.WARNING),
        ("after LSN 0/1400000", Severity.WARNING),
        ("before transaction 742", Severity.WARNING),
        ('at restore point "before the migration"', Severity.WARNING),
        ("reached consistency", Severity.WARNING),
    ],
)
def test_leaving_wal_behind_on_purpose_is_no_emergency(reason: str, severity: Severity) -> None:
    fork = [(2, f"1\t{at(20)}\t{reason}\n")]
    found = catalog([backup(10.1, 11.5, minute=60)], {1: range(3, 22), 2: range(20, 21)}, forks=fork)
    on_two = server(timeline=2, position=at(21), position_after=at(21))
    (finding,) = judged(replace(with_catalog(found), server=on_two)).findings
    assert (finding.key, finding.severity) == ("branch:left-behind:1", severity)
    assert ("recovery was told to end there" in finding.summary) == (severity is Severity.WARNING)


def test_a_newer_timeline_than_the_server_s_is_critical() -> None:
    made = catalog([backup(10.1, 11.5, minute=60)], {1: range(3, 21)}, {(1, 21): 0.5}, forks=[(2, f"1\t{at(20)}\tx\n")])
    assert "branch:promoted-elsewhere:2" in keys(judged(with_catalog(made)))


def test_findings_of_others_count_and_the_worst_comes_first() -> None:
    mild = Finding("a:mild", Severity.WARNING, "mild", "Wait.")
    bad = Finding("z:bad", Severity.CRITICAL, "bad", "Run.")
    health = judged(green(others=(mild, bad)))
    assert (health.verdict, keys(health)) == ("critical", ["z:bad", "a:mild"])


def test_a_hole_between_two_backups_is_told_although_all_after_it_is_there() -> None:
    made = catalog(
        [backup(3.2, 4.5, minute=0), backup(10.1, 11.5, minute=60)], {1: [*range(3, 7), *range(8, 21)]}, {(1, 21): 0.5}
    )
    health = judged(with_catalog(made))
    assert (health.verdict, keys(health)) == ("warning", [f"wal:hole:1/{at(7)}"])
    assert health.window is not None
    assert health.window.earliest == minutes(60)


@pytest.mark.parametrize("full", [backup(3.2, 4.5), backup(3.2, 4.5, permanent=True)], ids=["built on", "permanent"])
@pytest.mark.parametrize("there", [[], [6], [5, 6, 8, 9]], ids=["all of it", "one is left", "one is gone"])
def test_wal_behind_a_backup_is_missed_where_the_retention_wants_it(full: Backup, there: list[int]) -> None:
    """Behind one that nothing but its delta wants, and a permanent one, expiry keeps none."""
    delta = backup(10.1, 11.5, minute=60, delta_of=full.name, delta_lsn=full.start_lsn)
    facts = with_catalog(catalog([full, delta], {1: [3, 4, *there, *range(10, 21)]}, {(1, 21): 0.5}))
    only_the_newest = replace(LIMITS, retention=RetentionPolicy(1, timedelta(0)))
    assert keys(judged(facts, limits=only_the_newest)) == []
    (finding,) = judged(facts).findings
    assert finding.key == f"wal:hole:1/{at(7 if 5 in there else 5)}"
    assert finding.hint.endswith(f"until the retention no longer wants {full.name}.")


def test_a_retention_that_was_widened_misses_nothing_that_expiry_wrote_down() -> None:
    made = catalog(
        [backup(3.2, 4.5, permanent=True), backup(10.1, 11.5, minute=60)], {1: [3, 4, *range(10, 21)]}, {(1, 21): 0.5}
    )
    written = RemovedWal().and_also([(1, 0, 3), (1, 5, 10)])
    assert keys(judged(with_catalog(made, removed_wal=written))) == []
    elsewhere = RemovedWal().and_also([(1, 6, 10), (2, 5, 10)])
    assert keys(judged(with_catalog(made, removed_wal=elsewhere))) == [f"wal:hole:1/{at(5)}"]


def test_a_backup_that_was_found_damaged_fills_no_place_of_the_retention() -> None:
    """So expiry keeps the WAL of the one before it."""
    made = catalog(
        [backup(3.2, 4.5, minute=0), backup(10.1, 11.5, minute=60)], {1: [3, 4, *range(6, 21)]}, {(1, 21): 0.5}
    )
    limits = replace(LIMITS, retention=RetentionPolicy(1, timedelta(0)))
    assert keys(judged(with_catalog(made), limits=limits)) == []
    found = LastRun(NOW, ok=True, damaged=(made.backups[1].name,))
    told = keys(judged(with_catalog(made, verification=found), limits=limits))
    assert told == ["verify:newest-damaged", f"wal:hole:1/{at(5)}"]


def test_a_gap_on_another_branch_says_nothing_of_a_hole_before_the_newest_backup() -> None:
    """It begins before the fork of both, and is acknowledged; what is missing on ours is not."""
    gap = KnownGap(2, at(7), at(9), minutes(20), "lost", acknowledged=minutes(30))
    made = catalog(
        [backup(3.2, 4.5, minute=0), backup(10.1, 11.5, minute=60)], {1: [*range(3, 7), *range(8, 21)]},
        {(1, 21): 0.5}, forks=[(2, f"1\t{at(8.5)}\tx\n")],
    )  # fmt: skip
    assert f"wal:hole:1/{at(7)}" in keys(judged(with_catalog(replace(made, known_gaps=(gap,)))))
    ours = replace(gap, timeline=1)
    assert f"wal:hole:1/{at(7)}" not in keys(judged(with_catalog(replace(made, known_gaps=(ours,)))))


def test_a_known_gap_between_two_backups_is_told_once() -> None:
    gap = KnownGap(1, at(7), at(8), minutes(20), "lost", acknowledged=minutes(30))
    made = catalog(
        [backup(3.2, 4.5, minute=0), backup(10.1, 11.5, minute=60)], {1: [*range(3, 7), *range(8, 21)]}, {(1, 21): 0.5}
    )
    assert judged(with_catalog(replace(made, known_gaps=(gap,)))).verdict == "ok"


def test_an_older_backup_that_lost_objects_is_no_green() -> None:
    made = green_catalog()
    broken = replace(made.backups[0], problem="its parts hold 1 bytes, not 2")
    health = judged(with_catalog(replace(made, backups=(broken, made.backups[1]))))
    assert (health.verdict, keys(health)) == ("warning", ["backup:older-not-restorable"])


def test_a_backup_of_the_future_does_not_hide_that_none_comes() -> None:
    """A clock was wrong by years when it was taken; the store knows since when it is there."""
    made = green_catalog()
    future = replace(made.backups[1], finished=minutes(60) + timedelta(days=4000))
    facts = with_catalog(replace(made, backups=(made.backups[0], future)))
    assert judged(facts).verdict == "ok"
    assert "backup:overdue" in keys(judged(facts, now=minutes(60) + timedelta(hours=2)))


def test_a_backup_of_the_future_is_not_the_newest() -> None:
    """Its server's clock was wrong. WAL is judged from the backup after it, which no hole between them touches."""
    first, second = green_catalog().backups
    first = replace(first, finished=datetime(2035, 1, 1, tzinfo=UTC))
    found = catalog([first, second], {1: [3, 4, 5, 7, 8, 9, *range(10, 21)]}, {(1, 21): 0.5})
    health = judged(green(repository=RepositoryView(found, NOW, clock=NOW)))
    assert health.last_backup == second.name
    assert health.verdict == "warning"
    assert choose_backup(found, None) == second


def test_a_segment_that_is_being_uploaded_is_no_hole() -> None:
    """Several are uploaded at once, and a later one may be there first. What was confirmed must be there."""
    made = catalog([backup(10.1, 11.5, minute=60)], {1: [*range(10, 18), *range(19, 21)]})
    facts = replace(with_catalog(made), server=server(position=at(21), position_after=at(21)))
    under_way = replace(facts, stream=StreamView(streaming=True, confirmed=at(18)))
    assert keys(judged(under_way)) == []
    lost = replace(facts, stream=StreamView(streaming=True, confirmed=at(20)))
    assert keys(judged(lost)) == [f"wal:hole:1/{at(18)}"]
    ended = replace(facts, stream=StreamView(streaming=False, confirmed=at(18)))
    assert keys(judged(ended)) == [f"wal:hole:1/{at(18)}"]


def test_the_window_ends_where_a_restore_to_a_moment_ends() -> None:
    """Also while the server shows that nothing came since: a restore has no server to ask."""
    health = judged(with_catalog(green_catalog(marks=[(61, 1, 12), (66, 1, 21.5)])))
    assert health.window is not None
    assert health.window.latest == minutes(66)


def test_the_backup_that_runs_after_all_others_vanished_is_not_the_first() -> None:
    empty = catalog([], {1: range(3, 21)})
    running = JobView(running=True)
    assert "warning" in {f.severity.word for f in judged(replace(with_catalog(empty), backups=running)).findings}
    gone = judged(replace(with_catalog(empty, had_backups=True), backups=running))
    assert [(f.key, f.severity.word) for f in gone.findings] == [("backup:none", "critical")]


def test_wal_that_is_missing_since_nobody_knows_when_does_not_stay_a_warning() -> None:
    behind = green(server=server(position=at(30), position_after=at(30)), wal_age=None, behind_for=timedelta(minutes=5))
    assert judged(behind).verdict == "warning"
    assert judged(replace(behind, behind_for=LIMITS.rpo_critical)).verdict == "critical"


def test_an_older_backup_whose_own_wal_is_gone_is_told() -> None:
    made = catalog([backup(3.2, 4.5, minute=0), backup(10.1, 11.5, minute=60)], {1: [3, *range(5, 21)]}, {(1, 21): 0.5})
    assert keys(judged(with_catalog(made))) == ["backup:older-not-restorable"]


def test_a_newest_backup_that_nobody_can_read_is_critical_by_the_age_of_its_seal() -> None:
    broken = replace(backup(18.1, 18.5, minute=65, problem="damaged"), finished=datetime.fromtimestamp(0, UTC))
    made = replace(green_catalog(), backups=(broken, *green_catalog().backups))
    assert keys(judged(with_catalog(made))) == ["backup:newest-not-restorable"]


@pytest.mark.parametrize("claimed", [7, None], ids=["claimed", "by its newest backup"])
def test_the_repository_of_another_cluster_says_nothing_good_of_this_server(claimed: int | None) -> None:
    """After pg_upgrade the prefix is that of the old cluster, whose WAL may even end after the new one's."""
    made = replace(green_catalog(), system_identifier=claimed)
    if claimed is None:
        made = replace(made, backups=tuple(replace(b, system_identifier=7) for b in made.backups))
    health = judged(with_catalog(made))
    assert keys(health) == ["repository:other-cluster"]
    assert (health.rpo, health.durable, health.window, health.last_backup) == (None, None, None, "")
