"""uvicorn with several workers, from the files of examples/uvicorn."""

from __future__ import annotations

import math
import socket
import sys

from tests.servers.server import Server, variables
from tests.servers.site import EXAMPLES


class Uvicorn(Server):
    recycling_drops = reload_drops = math.inf
    # Its master runs no code of the user's, and replaces a worker after that has ended: all may be gone at one time.
    recycling_keeps_cache = False

    def command(self, listener: socket.socket) -> list[str]:
        return [sys.executable, "-m", "uvicorn", "--fd", str(listener.fileno()), "tests.servers.app.asgi:application"]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **variables(EXAMPLES / "uvicorn" / "uvicorn.env")}

    def recycling(self) -> list[str]:
        return ["--limit-max-requests", "10", "--limit-max-requests-jitter", "5"]
