"""granian, from the files of examples/granian."""

from __future__ import annotations

import math
import socket
import sys

from tests.servers.server import Server, variables
from tests.servers.site import EXAMPLES


class Granian(Server):
    """With threads, for WSGI."""

    interface = "wsgi"
    recycling_drops = reload_drops = math.inf  # what is in the queue of a worker's own socket, too

    def bind(self) -> socket.socket:
        """granian takes no socket, and each worker has its own on the one port: this one keeps the port for them."""
        reserved = socket.socket()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        return reserved

    def command(self, listener: socket.socket) -> list[str]:
        return [
            *(sys.executable, "-m", "granian", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--respawn-interval", "0.5", f"tests.servers.app.{self.interface}:application"),
        ]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **variables(EXAMPLES / "granian" / f"{self.interface}.env")}


class Asgi(Granian):
    interface = "asgi"
