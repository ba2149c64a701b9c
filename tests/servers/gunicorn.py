"""gunicorn with its worker classes, from the files of examples/gunicorn."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from tests.servers.server import Server
from tests.servers.site import EXAMPLES, Site, until


class Gunicorn(Server):
    """The sync worker."""

    config = "sync.py"
    application = "tests.servers.app.wsgi:application"

    def __init__(self, site: Site, arguments: Sequence[str] = ()) -> None:
        super().__init__(site, arguments)
        # With --preload the master has imported the code, and goes on with it: see Upgraded.
        self.reload_loads_code = "--preload" not in arguments

    def command(self, listener: socket.socket) -> list[str]:
        return [
            *(sys.executable, "-m", "gunicorn", "--config", str(EXAMPLES / "gunicorn" / self.config)),
            *("--bind", f"fd://{listener.fileno()}", "--no-control-socket"),
            self.application,
        ]

    def recycling(self) -> list[str]:
        return ["--max-requests", "10", "--max-requests-jitter", "5"]

    def impatience(self) -> list[str]:
        return ["--timeout", "2"]

    def wait_for_impatience(self, pid: int) -> None:
        until(lambda: f"WORKER TIMEOUT (pid:{pid})" in self.log(), self.log)


class Gthread(Gunicorn):
    config = "gthread.py"
    concurrency = 32


class Gevent(Gunicorn):
    config = "gevent.py"
    concurrency = 1000


class Uvicorn(Gunicorn):
    config = "uvicorn.py"
    application = "tests.servers.app.asgi:application"
    concurrency = 1000
    drops_unread = True
