"""Where the process listens: ``host:port``, ``[::1]:port``, or nowhere (``off``)."""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_LISTEN = "127.0.0.1:8778"
_OFF = ("off", "no", "none", "")
_ADDRESS = re.compile(r"^(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\s:\[\]/@]*)):(?P<port>\d{1,5})$")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """``host`` is empty for all addresses; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def reachable_host(self) -> str:
        """Where a client on this machine asks."""
        return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104


def parse_listen(text: str) -> ListenAddress | None:
    """None for ``off``. Raises ValueError for what is no address."""
    given = text.strip()
    if given.lower() in _OFF:
        return None
    match = _ADDRESS.match(given)
    if match is None or int(match["port"]) > 65535:
        raise ValueError("expected host:port, for example 127.0.0.1:8778, [::1]:8778, 0.0.0.0:8778, or off")
    host = match["v6"] or match["host"]
    return ListenAddress("" if host == "*" else host, int(match["port"]))
