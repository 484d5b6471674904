"""`pgbackup check`: is everything as backups need it? Each answer is a named line; nothing is believed, all is tried.

The halves are independent: with the server down the repository is still checked, and the other way round.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pgbackup.config.inherited import Inherited
from pgbackup.engines.check.report import CheckReport
from pgbackup.engines.check.server import ServerLook, ServerRequest, check_server
from pgbackup.engines.check.store import FOLDER, check_clocks, check_objects
from pgbackup.errors import ConfigError, PgbackupError
from pgbackup.repository import keys
from pgbackup.repository.catalog_reader import claim_prefix, read_cluster
from pgbackup.repository.codec import Codec
from pgbackup.repository.documents import ClusterDocument
from pgbackup.repository.key_check import check_key
from pgbackup.storage.base import ObjectStore
from pgbackup.storage.rehearsal import RehearsalStore


class Checkable(Protocol):
    """What knows best itself what it needs: the engine."""

    def check(self, report: CheckReport, found: ServerLook | None) -> None:
        """Add lines about it; ``found`` is None when the server did not answer."""


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What to check. What ``open_store`` raises becomes a finding; a codec that cannot be made ends the check.

    ``inherited``: what became of the variables of WAL-E and WAL-G.
    """

    server: ServerRequest
    open_store: Callable[[], ObjectStore]
    make_codec: Callable[[], Codec]
    inherited: Sequence[Inherited] = ()
    make_engine: Callable[[], Checkable] | None = None


def run_check(request: CheckRequest) -> CheckReport:
    """Check server and repository. Raises nothing that could be a finding."""
    report = CheckReport()
    _show_inherited(report, request.inherited)
    found = check_server(report, request.server)
    if request.make_engine is not None:
        with report.attempt("engine"):
            request.make_engine().check(report, found)
    store = _open(report, request)
    if store is not None:
        try:
            check_objects(report, store)
            codec = request.make_codec()
            _check_encryption(report, store, codec)
            _check_cluster(report, store, codec, found)
        finally:
            store.close()
    check_clocks(report, store, found.state.clock_ahead if found else None)
    return report


def _show_inherited(report: CheckReport, inherited: Sequence[Inherited]) -> None:
    """What is understood and what is not of the environment of another tool."""
    for each in inherited:
        text = f"{each.variable} is {each.use}: {each.text}"
        if each.loses:
            report.warning("inherited", text, "See that you can do without it, and unset it.")
        else:
            report.ok("inherited", text)


def _open(report: CheckReport, request: CheckRequest) -> ObjectStore | None:
    try:
        return request.open_store()
    except PgbackupError as exc:
        report.failure("repository", str(exc), exc.hint)
        return None


def _check_cluster(report: CheckReport, store: ObjectStore, codec: Codec, found: ServerLook | None) -> None:
    """One cluster per prefix, one key per prefix: what a backup checks before it writes, without the writing."""
    with report.attempt("cluster"):
        stored = read_cluster(store)
        owner = f"the prefix belongs to cluster {stored.system_identifier}" if stored else _unclaimed(store)
        if found is None:
            report.ok("cluster", owner)
        else:
            facts = found.facts
            document = ClusterDocument(facts.system_identifier, facts.segment_bytes, facts.version_num)
            try:
                claim_prefix(RehearsalStore(store), document, codec)
            except ConfigError:
                report.ok("cluster", owner)  # a matter of the key, which has a line of its own
                return
            report.ok("cluster", f"{owner}, as the server does" if stored else f"{owner}: the first to write takes it")


def _unclaimed(store: ObjectStore) -> str:
    """What there is in a prefix that no pgbackup has written to."""
    if any(next(iter(store.list(folder)), None) is not None for folder in (keys.BASEBACKUPS, keys.WAL)):
        return "the prefix holds what another tool stored, and no pgbackup has taken it yet"
    return "the prefix is new"


def _check_encryption(report: CheckReport, store: ObjectStore, codec: Codec) -> None:
    """The key works here, and it is the key with which the prefix was begun."""
    with report.attempt("encryption"):
        sent = secrets.token_bytes(100_000)
        name = keys.with_extension(FOLDER + "round-trip", codec.extension)
        if codec.decode(name, codec.encode(sent)) != sent:
            report.failure("encryption", "what was encoded does not decode to the same")
            return
        known = (
            "the key of this prefix" if store.head(keys.KEY_CHECK) else "nothing is stored yet to compare the key with"
        )
        check_key(RehearsalStore(store), codec)
        if codec.encrypted:
            report.ok("encryption", f"on: the round trip works; {known}")
        else:
            report.ok("encryption", "off: what is stored can be read by everybody who may read the bucket")
