"""Which server, in which mode, is held to which check: the table of docs/servers.md, row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tests.servers import checks
from tests.servers.checks import Make
from tests.servers.gunicorn import Gunicorn
from tests.servers.server import Server

#: The columns. A mode has a check for each, or says why there is none.
COLUMNS = ("stampede", "kill", "restart")

Check = Callable[[Make], None]

#: What holds in every server.
COMMON: Mapping[str, Check] = {"stampede": checks.stampede, "kill": checks.kill, "restart": checks.restart}


class Mode(NamedTuple):
    server: str  # the section of docs/servers.md
    mode: str
    make: Callable[..., Server]  # called with a Site, and with options to add to the command
    checks: Mapping[str, Check | str] = COMMON  # by column; text says why a check has no meaning here


MODES = [
    Mode("gunicorn", "sync", Gunicorn),
]
