"""The repository's half of `pgbackup check`: everything that backups ask of an object store, tried on test objects.

The objects lie under ``pgbackup_005/check/`` and are removed afterwards. What a store merely accepts is not believed:
a conditional put must be refused the second time, and what comes back must be what was sent.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

from pgbackup.count_text import counted
from pgbackup.engines.check.report import CheckReport
from pgbackup.repository import keys
from pgbackup.storage.base import ObjectStore

FOLDER = keys.BOOKKEEPING + "check/"
SKEW_WARNING = timedelta(seconds=5)
SKEW_FAILURE = timedelta(minutes=5)


def check_objects(report: CheckReport, store: ObjectStore) -> None:
    """Add a line for each thing a store must be able to do."""
    # Eight digits: a key under our folder must not hold a run of 24 (wal-g delete would look at it).
    place = f"{FOLDER}{secrets.token_hex(4)}-"
    probe = _Probe(report, store, place)
    try:
        if not probe.put_and_get():
            return
        probe.list_objects()
        probe.conditional_put()
        probe.replace()
        probe.multipart()
    finally:
        probe.clean_up()


def check_clocks(report: CheckReport, store: ObjectStore | None, server_ahead: timedelta | None) -> None:
    """Compare the clocks of this machine, the server and the store; restores to a time depend on them."""
    ahead: dict[str, timedelta] = {}
    if server_ahead is not None:
        ahead["the server"] = server_ahead
    answered = store is None
    if store is not None:
        with report.attempt("clocks"):
            before = datetime.now(UTC)
            shown = store.clock()
            answered = True
            if shown is not None:
                # HTTP dates are cut to whole seconds: half a second is the best guess.
                middle = before + (datetime.now(UTC) - before) / 2
                ahead["the store"] = shown + timedelta(seconds=0.5) - middle
    if not ahead and not answered:
        return
    everyone = {"this machine": timedelta(0), **ahead}
    first, last = min(everyone, key=everyone.__getitem__), max(everyone, key=everyone.__getitem__)
    skew = everyone[last] - everyone[first]
    text = f"{last} is {skew.total_seconds():.1f} s ahead of {first}"
    if skew >= SKEW_FAILURE:
        report.failure("clocks", text, "Set the clocks by NTP: S3 refuses requests that are 15 minutes off.")
    elif skew >= SKEW_WARNING:
        report.warning("clocks", text, "Set the clocks by NTP: a restore to a time means the server's clock.")
    elif not ahead:
        report.ok("clocks", "nothing to compare with: neither server nor store shows a clock")
    else:
        report.ok("clocks", f"{', '.join(everyone)}: within {max(skew.total_seconds(), 0.1):.1f} s")


class _Probe:
    """One round of test objects below ``place``."""

    def __init__(self, report: CheckReport, store: ObjectStore, place: str) -> None:
        self._report = report
        self._store = store
        self._place = place
        self._content = secrets.token_bytes(1000)

    def put_and_get(self) -> bool:
        """Whether the rest is worth trying."""
        store, key, passed = self._store, self._place + "plain", False
        with self._report.attempt("put"):
            store.put(key, self._content)
            self._report.ok("put", f"objects can be written below {store.url}")
            passed = True
        if passed:
            with self._report.attempt("get"):
                self._compare("get", key, self._content, "what was written came back")
        return passed

    def list_objects(self) -> None:
        with self._report.attempt("list"):
            found = [(info.key, info.size_bytes) for info in self._store.list(self._place)]
            if found == [(self._place + "plain", len(self._content))]:
                self._report.ok("list", "a new object is listed at once")
            else:
                hint = "This store's listings lag behind or leave out: backups cannot be trusted to it."
                self._report.failure("list", f"the listing of one new object shows {len(found)}", hint)

    def conditional_put(self) -> None:
        """A second put of other bytes must be refused and change nothing."""
        store, key = self._store, self._place + "once"
        with self._report.attempt("conditional put"):
            answers = store.put_if_absent(key, self._content), store.put_if_absent(key, b"other"), store.get(key)
            if answers != (True, False, self._content):
                hint = "This store overwrites what it must not: use another."
                self._report.failure("conditional put", "an existing object was overwritten", hint)
            elif getattr(store, "conditional_put", True) is False:
                self._report.warning(
                    "conditional put", "the store does not know If-None-Match; pgbackup asks before each put instead",
                    "Let only one pgbackup write below this prefix: two at once could overwrite each other.",
                )  # fmt: skip
            else:
                self._report.ok("conditional put", "a second put is refused, the first object stays")

    def replace(self) -> None:
        """Only the version that was read may be replaced: what the lease relies on."""
        store, key = self._store, self._place + "plain"
        with self._report.attempt("conditional replace"):
            _, etag = store.get_with_etag(key)
            first, stale = store.replace(key, b"second", etag), store.replace(key, b"third", etag)
            if (first, stale, store.get(key)) == (True, False, b"second"):
                self._report.ok("conditional replace", "a stale version is not replaced")
            else:
                hint = "Let only one pgbackup write below this prefix: the lease cannot be relied on."
                self._report.warning(
                    "conditional replace", "a stale version was replaced, or the new one was not", hint
                )

    def multipart(self) -> None:
        """Parts out of order, completed; then a second upload that is listed, aborted and gone."""
        store, key = self._store, self._place + "parts"
        first, last = secrets.token_bytes(max(store.min_part_bytes, 1)), b"the end"
        with self._report.attempt("multipart upload"):
            upload = store.start_upload(key)
            upload.put_part(2, last)
            upload.put_part(1, first)
            if not upload.complete():
                self._report.failure(
                    "multipart upload",
                    "the store shows a new object with another ETag than that of the upload which made it, so it was "
                    "taken for another writer's",
                    "Base backups fail on this store, or on a proxy before it (`rclone serve s3` is one): use another.",
                )
                return
            self._compare("multipart upload", key, first + last, "parts are put together unharmed")
        with self._report.attempt("multipart clean-up", failing="warning"):
            store.start_upload(self._place + "aborted")
            mine = store.list_uploads(self._place)
            for unfinished in mine:
                store.abort_upload(unfinished.key, unfinished.upload_id)
            if mine and not store.list_uploads(self._place):
                self._report.ok("multipart clean-up", "unfinished uploads are listed and can be aborted")
            else:
                hint = "Give the bucket a rule that aborts unfinished uploads after some days."
                self._report.warning("multipart clean-up", "unfinished uploads cannot be found or aborted", hint)

    def clean_up(self) -> None:
        """Remove the test objects; that is the test of deleting."""
        with self._report.attempt("delete", failing="warning"):
            left = [info.key for info in self._store.list(self._place)]
            self._store.delete(left)
            still = [info.key for info in self._store.list(self._place)]
            if still:
                hint = "Old pieces of WAL and expired backups stay until a rule of the bucket removes them."
                self._report.warning(
                    "delete", f"still there after their deletion: {counted(len(still), 'test object')}", hint
                )
            else:
                self._report.ok("delete", "the test objects are gone")

    def _compare(self, name: str, key: str, sent: bytes, fine: str) -> None:
        with self._store.open_read(key) as stream:
            received = b"".join(iter(lambda: stream.read(1 << 20), b""))
        if received == sent:
            mode = getattr(self._store, "checksum_mode", "")
            self._report.ok(name, f"{fine}; checksums: {mode}" if mode else fine)
        else:
            text = f"{len(sent)} bytes were sent, {len(received)} others came back"
            self._report.failure(name, text, "This store, or a proxy before it, changes objects: do not use it.")
