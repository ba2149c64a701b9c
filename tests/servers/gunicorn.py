"""gunicorn with its worker classes, from the files of examples/gunicorn."""

from __future__ import annotations

import socket
import sys

from tests.servers.server import Server
from tests.servers.site import EXAMPLES


class Gunicorn(Server):
    """The sync worker."""

    config = "sync.py"
    application = "tests.servers.app.wsgi:application"

    def command(self, listener: socket.socket) -> list[str]:
        return [
            *(sys.executable, "-m", "gunicorn", "--config", str(EXAMPLES / "gunicorn" / self.config)),
            *("--bind", f"fd://{listener.fileno()}", "--workers", str(self.workers), "--no-control-socket"),
            self.application,
        ]

    def recycling(self) -> list[str]:
        return ["--max-requests", "10", "--max-requests-jitter", "5"]
