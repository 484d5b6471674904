"""What `pgbackup check` says of the tool: which it is, what it needs and has not got, what it cannot do."""

from __future__ import annotations

from dataclasses import dataclass

from pgbackup.core.lsn import MIB
from pgbackup.engines.check.report import CheckReport
from pgbackup.engines.check.server import ServerLook
from pgbackup.engines.wale.base_backup import ToolBackup, refuse_what_cannot_work
from pgbackup.engines.wale.dialects import NO_DATA_HINT
from pgbackup.postgres.session import Session
from pgbackup.postgres.visible_directory import visible_directory
from pgbackup.repository.codec import is_readable

_MAY_CALL = "SELECT to_regprocedure(%s) IS NULL OR has_function_privilege(to_regprocedure(%s), 'EXECUTE')"
_EXCLUSIVE = ("pg_start_backup(text,boolean,boolean)", "pg_stop_backup()")
_OLD_FUNCTIONS = ("pg_start_backup(text,boolean,boolean)", "pg_stop_backup(boolean,boolean)")
_NEW_FUNCTIONS = ("pg_backup_start(text,boolean)", "pg_backup_stop(boolean)")
_TIMEOUT_HINT = "As a superuser: ALTER SYSTEM SET archive_timeout = '60s'; SELECT pg_reload_conf();"


@dataclass(frozen=True)
class ToolCheck:
    """Checks the tool as it would be called."""

    how: ToolBackup

    def run(self, report: CheckReport, found: ServerLook | None) -> None:
        """Add the lines. Raises nothing that could be a finding."""
        driver = self.how.driver
        with report.attempt("engine"):
            report.ok("engine", f"{driver.dialect.name} ({driver.program}): {driver.version()}")
        self._programs(report)
        if driver.gpg_key:
            with report.attempt("engine key"):
                driver.require_key()
                report.ok("engine key", f"GnuPG encrypts to {driver.gpg_key}")
        self._readable(report)
        if found is None:
            return
        with report.attempt("engine and server"):
            refuse_what_cannot_work(self.how, found.facts)
            report.ok("engine and server", f"{driver.dialect.name} can back up PostgreSQL {found.facts.major}")
        with report.attempt("engine data directory"):
            self._data_directory(report, found)
        self._open_segment(report, found)

    def _programs(self, report: CheckReport) -> None:
        missing = self.how.driver.missing_programs()
        if missing:
            report.failure("engine programs", f"{', '.join(missing)} missing", f"Install {' and '.join(missing)} here.")
        elif self.how.driver.dialect.programs:
            report.ok("engine programs", f"{', '.join(self.how.driver.dialect.programs)} are there")

    def _readable(self, report: CheckReport) -> None:
        """Health, verification and a restore without the tool read the archive themselves."""
        dialect = self.how.driver.dialect
        if dialect.wal_extension is not None and not is_readable(dialect.wal_extension):
            text = f"what {dialect.name} stores cannot be read by pgbackup, so nothing of it counts as restorable"
            report.failure("engine and reader", text, "Install pgbackup[wal-e].")

    def _data_directory(self, report: CheckReport, found: ServerLook) -> None:
        dialect = self.how.driver.dialect
        path = visible_directory(self.how.data_directory, found.facts)
        if path is not None:
            report.ok("engine data directory", f"{path} is visible, and the server's")
            self._rights(report, found)
        elif dialect.remote_backups:
            report.ok("engine data directory", "not visible: it copies over the replication protocol")
        else:
            where = found.facts.data_directory or "an unknown place"
            report.failure("engine data directory", f"{where} is not visible here, or not the server's", NO_DATA_HINT)

    def _rights(self, report: CheckReport, found: ServerLook) -> None:
        """A local backup calls functions that our own role need not have."""
        functions = _OLD_FUNCTIONS if found.facts.major <= 14 else _NEW_FUNCTIONS
        if not self.how.driver.dialect.remote_backups:
            functions = _EXCLUSIVE
        with report.attempt("engine role"):
            with Session.connect(self.how.conninfo, application_name=self.how.application_name) as session:
                denied = [f for f in functions if not session.query(_MAY_CALL, (f, f))[0][0]]
                role = session.query("SELECT quote_ident(current_user)")[0][0]
            if denied:
                hint = "As a superuser, in the database postgres: " + " ".join(
                    f"GRANT EXECUTE ON FUNCTION {function} TO {role};" for function in denied
                )
                report.failure("engine role", f"the role may not call {', '.join(denied)}", hint)
            else:
                report.ok("engine role", "the role may start and stop a backup")

    def _open_segment(self, report: CheckReport, found: ServerLook) -> None:
        size = found.facts.segment_bytes // MIB
        if found.state.number("archive_timeout"):
            seconds = found.state.number("archive_timeout")
            text = f"WAL is shipped in whole segments of {size} MiB; archive_timeout ends one after {seconds} s"
            report.ok("engine and WAL", text)
        else:
            text = (
                f"WAL is shipped in whole segments: what an open one of {size} MiB holds can be lost, however old it is"
            )
            report.warning("engine and WAL", text, _TIMEOUT_HINT)
