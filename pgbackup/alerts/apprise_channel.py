"""The hundred services that Apprise knows, with the extra ``pgbackup[apprise]``: any address that is not http(s)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pgbackup.alerts.base import Answer, DeliveryError, Origin
from pgbackup.alerts.webhook_shapes import headline
from pgbackup.core.alert_book import Notice, NoticeKind
from pgbackup.core.findings import Severity

if TYPE_CHECKING:
    from types import ModuleType


class AppriseChannel:
    """One Apprise address. Raises ValueError when the extra is missing, or the address is not known to it."""

    def __init__(self, url: str, origin: Origin) -> None:
        library = _library()
        self._origin = origin
        self._scheme = url.partition(":")[0].lower()
        self._service: Any = library.Apprise(asset=library.AppriseAsset(app_id="pgbackup", app_desc="pgbackup"))
        if not self._service.add(url):
            raise ValueError(f"Apprise does not know how to send to {self._scheme}://...")

    @property
    def name(self) -> str:
        return f"apprise {self._scheme}"

    def send(self, notice: Notice) -> Answer:
        """Raises DeliveryError; Apprise does not say why something failed."""
        body = f"{notice.finding.hint}\n[{notice.finding.key}] since {notice.since.isoformat(timespec='seconds')}"
        sent = self._service.notify(
            body=body,
            title=headline(notice, self._origin),
            notify_type=_kind(notice),
            # Services that take HTML get it escaped; else a `<` of ours would make them refuse the text.
            body_format="text",
        )
        if not sent:
            raise DeliveryError("Apprise could not deliver it", retryable=True)
        return Answer("delivered")

    def close(self) -> None: ...


def _library() -> ModuleType:
    try:
        import apprise
    except ImportError:
        raise ValueError("it needs the extra: pip install 'pgbackup[apprise]'") from None
    # Their log lines show addresses; urllib3 is what Apprise sends with.
    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    urllib3 = logging.getLogger("urllib3")
    urllib3.setLevel(max(urllib3.level, logging.WARNING))
    module: ModuleType = apprise
    return module


def _kind(notice: Notice) -> str:
    if notice.kind is NoticeKind.RESOLVED:
        return "success"
    return "failure" if notice.finding.severity is Severity.CRITICAL else "warning"
