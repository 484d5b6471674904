"""The pages, as a WSGI application: ``/livez``, ``/readyz``, ``/metrics``, ``/status.json``. Everything is read-only.

``/livez`` is 503 when a worker hangs: the process is then worth a restart. ``/readyz`` is 503 unless a current health
check says that the server can be recovered (ok, or with warnings): unknown is never green. Both say why, in text.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

from pgbackup.core.status import StatusSnapshot, Verdict, verdict_now
from pgbackup.core.status_json import status_json
from pgbackup.core.worker_health import WorkerState
from pgbackup.logs import redact
from pgbackup.printable import printable, printable_json
from pgbackup.web.metrics import CONTENT_TYPE, Metrics, ReadStatus

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"
_READY = (Verdict.OK, Verdict.WARNING)
_log = logging.getLogger(__name__)

StartResponse = Callable[[str, list[tuple[str, str]]], object]
Page = Callable[[], "Answer"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One response."""

    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class WebSources:
    """Where pages read from, at any time and from any thread: the newest snapshot, the workers, the clock."""

    read_status: ReadStatus
    worker_states: Callable[[], Iterable[WorkerState]]
    now: Callable[[], datetime]
    version: str


class Pages:
    """The WSGI application."""

    def __init__(self, sources: WebSources) -> None:
        self._sources = sources
        self._metrics = Metrics(sources.read_status, sources.now, version=sources.version)
        self._pages: Mapping[str, Page] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": lambda: Answer(HTTPStatus.OK, self._metrics.render(), CONTENT_TYPE),
            "/status.json": self._status,
        }

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> list[bytes]:
        method = environ["REQUEST_METHOD"]
        answer = self._answer(method, environ.get("PATH_INFO", ""))
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *answer.headers,
        ]
        start_response(f"{answer.status.value} {answer.status.phrase}", headers)
        return [] if method == "HEAD" else [answer.body]

    def _answer(self, method: str, path: str) -> Answer:
        page = self._pages.get(path)
        if page is None:
            there = " ".join(self._pages)
            return Answer(HTTPStatus.NOT_FOUND, f"not found; there are {there}\n".encode())
        if method not in ("GET", "HEAD"):
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n", headers=(("Allow", "GET, HEAD"),))
        try:
            return page()
        except Exception:  # noqa: BLE001 - a border: the reader gets no traceback, the log does
            _log.exception("the page %s failed", path)
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"this page failed; the log says why\n")

    # -- the pages ------------------------------------------------------------------------------------------------

    def _livez(self) -> Answer:
        silent = [state.name for state in self._sources.worker_states() if state.silent]
        if silent:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, ["not alive", *(f"worker {name} hangs" for name in silent)])
        return _text(HTTPStatus.OK, ["alive"])

    def _readyz(self) -> Answer:
        snapshot = self._sources.read_status()
        verdict = verdict_now(snapshot, self._sources.now())
        status = HTTPStatus.OK if verdict in _READY else HTTPStatus.SERVICE_UNAVAILABLE
        return _text(status, [str(verdict), *_reasons(snapshot, verdict, self._sources.now())])

    def _status(self) -> Answer:
        document = _redacted(status_json(self._sources.read_status(), self._sources.now()))
        body = printable_json(json.dumps(document, indent=2, ensure_ascii=False)) + "\n"
        return Answer(HTTPStatus.OK, body.encode(), _JSON)


def _text(status: HTTPStatus, lines: Iterable[str]) -> Answer:
    return Answer(status, "".join(f"{printable(redact(line))}\n" for line in lines).encode())


def _redacted(value: object) -> object:
    """Findings quote errors, and errors quote anything. Value by value, so that the document keeps its shape."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _redacted(item) for key, item in value.items()}
    return [_redacted(item) for item in value] if isinstance(value, list) else value


def _reasons(snapshot: StatusSnapshot | None, verdict: Verdict, now: datetime) -> list[str]:
    if snapshot is None:
        return ["no health check has ended yet"]
    if verdict == Verdict.UNKNOWN and snapshot.verdict != Verdict.UNKNOWN:
        seconds = (now - snapshot.as_of).total_seconds()
        ago = f"{seconds:.0f} s ago" if seconds >= 0 else f"{-seconds:.0f} s from now: the clock was set back"
        return [f"the last health check was {ago}"]
    return [f"{found.finding.severity.word}: {found.finding.summary}" for found in snapshot.findings]
