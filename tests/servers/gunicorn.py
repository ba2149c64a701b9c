"""gunicorn with its worker classes, from the files of examples/gunicorn."""

from __future__ import annotations

import math
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.procs import until
from tests.servers.server import Server
from tests.servers.site import EXAMPLES, Site


class Gunicorn(Server):
    """The sync worker."""

    config = "sync.py"
    application = "tests.servers.app.wsgi:application"

    def __init__(self, site: Site, arguments: Sequence[str] = ()) -> None:
        super().__init__(site, arguments)
        self._binds_itself = False
        # With --preload the master has imported the code, and goes on with it.
        self.reload_loads_code = "--preload" not in arguments

    def command(self, listener: socket.socket) -> list[str]:
        address = "127.0.0.1:0" if self._binds_itself else f"fd://{listener.fileno()}"
        return [
            *(str(Path(sys.executable).with_name("gunicorn")), "--config", str(EXAMPLES / "gunicorn" / self.config)),
            *("--bind", address, "--no-control-socket"),
            self.application,
        ]

    def recycling(self) -> list[str]:
        # A worker that is told to stop before it has signal handlers of its own does not hear it: the master waits.
        return ["--max-requests", "10", "--max-requests-jitter", "5", "--graceful-timeout", "5"]

    def find_port(self) -> None:
        if self._binds_itself:
            until(lambda: "Listening at: " in self.log(), self.tail)
            self.port = int(self.log().partition("Listening at: http://127.0.0.1:")[2].split()[0])

    def upgradable(self) -> list[str]:
        self._binds_itself = True  # a socket that it has from somebody else, it does not hand to another master
        return ["--pid", str(self.site.directory / "pid")]

    def upgrade(self) -> None:
        imports = len(self.site.records("imports"))
        self.signal(signal.SIGUSR2)
        pid = self.site.directory / "pid.2"
        until(lambda: pid.exists() and pid.read_text(), self.tail)
        new = int(pid.read_text())
        until(lambda: len(self.site.records("imports")) > imports, self.tail)
        self.signal(signal.SIGTERM)
        self.master = new

    def impatience(self) -> list[str]:
        return ["--timeout", "2"]

    def wait_for_impatience(self, pid: int) -> None:
        until(lambda: f"WORKER TIMEOUT (pid:{pid})" in self.log(), self.tail)


class Gthread(Gunicorn):
    config = "gthread.py"


class Gevent(Gunicorn):
    config = "gevent.py"


class Uvicorn(Gunicorn):
    config = "uvicorn.py"
    application = "tests.servers.app.asgi:application"
    recycling_drops = reload_drops = math.inf
